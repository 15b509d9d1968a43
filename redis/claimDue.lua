-- claimDue: hands the due members of a list (outbox, timers, leases) to one caller; if it dies, they are due again
--   after the hold.
-- KEYS[1] sorted set, scored by the time each member is due, ms
-- ARGV[1] members at most   ARGV[2] hold, ms
-- Returns the members
local list, max, hold = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local members = redis.call('ZRANGEBYSCORE', list, '-inf', now, 'LIMIT', 0, max)
for _, member in ipairs(members) do redis.call('ZADD', list, now + hold, member) end
return members
