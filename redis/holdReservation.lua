-- holdReservation: prolongs or gives back what one owner has reserved of a device, or its place among those that wait.
--   A late renewal succeeds as long as no other owner has counted it as free.
-- KEYS[1] reservations of the device
-- ARGV[1] owner   ARGV[2] time to live from now, ms; 0 gives it back
-- Returns {'ok'} | {'lost'}
local all, owner, ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
local text = redis.call('HGET', all, owner)
-- A full Redis takes what follows after a write that needs no memory.
redis.call('HDEL', all, owner)
if not text then return { 'lost' } end
if ms == 0 then return { 'ok' } end
local entry = cjson.decode(text)
entry['until'] = farmTime(string.match(all, '^.-}:')) + ms
redis.call('HSET', all, owner, cjson.encode(entry))
redis.call('EXPIRE', all, 86400) -- of a device that is gone for good
return { 'ok' }
