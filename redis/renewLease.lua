-- renewLease: prolongs an attempt's lease. A late renewal succeeds as long as no other attempt took the step.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] attempt id   ARGV[3] lease, ms
-- Returns {'ok', desired, lease end} | {'lost'}
local suffix, attempt, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local step = redis.call('HMGET', stepOf(suffix), 'attemptId', 'state')
if step[1] ~= attempt or step[2] == 'delivered' then return { 'lost' } end
local session = redis.call('HMGET', S, 'desired', 'status')
-- A full Redis refuses a script whose first write needs memory; after one that frees some it takes them all, and no
-- lease ends for lack of room.
redis.call('ZREM', B .. 'leases', memberOf(suffix))
if step[2] == 'open' then
  if session[2] == 'paused' then return { 'lost' } end
  redis.call('HSET', stepOf(suffix), 'state', 'leased')
  redis.call('ZREM', B .. 'outbox', 'step:' .. memberOf(suffix))
end
redis.call('HSET', stepOf(suffix), 'leaseUntil', now + lease)
redis.call('ZADD', B .. 'leases', now + lease, memberOf(suffix))
return { 'ok', session[1], now + lease }
