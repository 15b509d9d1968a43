-- claimDue: hands the due members of a list (outbox, timers, leases, queues that are served) to one caller; if it dies,
--   they are due again after the hold. A half in their score then says that they were due.
-- KEYS[1] sorted set, scored by the time each member is due, ms
-- ARGV[1] members at most   ARGV[2] hold, ms
-- Returns the members
local list, max, hold = KEYS[1], ARGV[1], ARGV[2]
local now = farmTime(string.match(list, '^.-}:'))
local members = redis.call('ZRANGEBYSCORE', list, '-inf', now, 'LIMIT', 0, max)
for _, member in ipairs(members) do redis.call('ZADD', list, now + hold + 0.5, member) end
return members
