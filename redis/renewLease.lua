-- renewLease: prolongs an attempt's lease. A late renewal succeeds as long as no other attempt took the step.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] attempt id   ARGV[3] lease, ms
-- Returns {'ok', desired, lease end} | {'lost'}. Desired is what the session is to do, or `yield`: make way for an
--   urgent one
local suffix, attempt, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local step = redis.call('HMGET', stepOf(suffix), 'attemptId', 'state', 'lane', 'worker', 'yield')
if step[1] ~= attempt or step[2] == 'delivered' then return { 'lost' } end
local session = redis.call('HMGET', S, 'desired', 'status', 'keyId', 'group', 'priority')
-- A full Redis refuses a script whose first write needs memory; after one that frees some it takes them all, and no
-- lease ends for lack of room.
redis.call('ZREM', B .. 'leases', memberOf(suffix))
if step[2] == 'open' then
  if session[2] == 'paused' then return { 'lost' } end
  redis.call('HSET', stepOf(suffix), 'state', 'leased')
  if step[3] == 'gpu' then
    leaveLine(suffix)
    holdSlot(suffix, step[4], session[3], session[4], session[5] or '5', '-')
    -- Its work was not lost after all.
    countUse('lost', -(redis.call('HGET', stepOf(suffix), 'lost') or 0))
    redis.call('HDEL', stepOf(suffix), 'lost')
    redis.call('HSET', stepOf(suffix), 'since', now)
  end
  redis.call('ZREM', B .. 'outbox', 'step:' .. memberOf(suffix))
end
redis.call('HSET', stepOf(suffix), 'leaseUntil', now + lease)
redis.call('ZADD', B .. 'leases', now + lease, memberOf(suffix))
return { 'ok', session[1] == 'run' and step[5] and 'yield' or session[1], now + lease }
