-- bookMemory: books bytes of a pool for one holder beside what the others have booked: of the RAM of a host, which its
--   workers share, or of what an API key may hold. A booking ends with its time, so a dead holder's goes by itself.
-- KEYS[1] bookings of the pool: holder → `<bytes> <until>`
-- ARGV[1] holder   ARGV[2] bytes that it holds   ARGV[3] bytes more that it asks for   ARGV[4] bytes there are for all
-- ARGV[5] time to live, ms
-- Returns {'booked', bytes of the others} | {'refused', bytes of the others}: then only what it holds is booked
local all, holder, held, more, there = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = farmTime(string.match(all, '^.-}:'))
local others = 0
local known = redis.call('HGETALL', all)
-- A full Redis takes what follows after a write that needs no memory.
redis.call('HDEL', all, holder)
for i = 1, #known, 2 do
  if known[i] ~= holder then
    local bytes, till = string.match(known[i + 1], '^(%d+) (%d+)$')
    if tonumber(till) <= now then
      redis.call('HDEL', all, known[i])
    else
      others = others + tonumber(bytes)
    end
  end
end
local fits = more == 0 or others + held + more <= there
local booked = fits and held + more or held
if booked > 0 then
  redis.call('HSET', all, holder, string.format('%.0f %.0f', booked, now + tonumber(ARGV[5])))
  redis.call('EXPIRE', all, 86400) -- of a host or a key that is gone for good
end
return { fits and 'booked' or 'refused', string.format('%.0f', others) }
