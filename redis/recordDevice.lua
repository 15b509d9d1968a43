-- recordDevice: notes how a device is now, with what has changed; of several who saw the same change the first one
--   does.
-- KEYS[1] what is known of the devices that are here: a hash by device id
-- ARGV[1] device id   ARGV[2] what was known of it ('' nothing)   ARGV[3] what is known now ('' it has gone)
-- ARGV[4] most events kept
-- ARGV from 5 on: events, JSON without braces, number and time
-- Returns {'ok', number of the newest event} | {'late'}: another process noted something else meanwhile
local known, device, before, after = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if (redis.call('HGET', known, device) or '') ~= before then return { 'late' } end
if after == '' then redis.call('HDEL', known, device) else redis.call('HSET', known, device, after) end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local newest = 0
for i = 5, #ARGV do
  newest = redis.call('INCR', known .. ':newest')
  redis.call('ZADD', known .. ':events', newest, '{"id":' .. newest .. ',"at":' .. now .. ',' .. ARGV[i] .. '}')
end
redis.call('ZREMRANGEBYRANK', known .. ':events', 0, -ARGV[4] - 1)
return { 'ok', newest }
