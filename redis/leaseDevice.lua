-- leaseDevice: takes, renews or gives back the lease of one device, or of one shelf of models.
-- KEYS[1] lease
-- ARGV[1] owner   ARGV[2] lease, ms; 0 gives it back
-- Returns {'ok'} | {'taken', owner}
local lease, owner, ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
local holder = redis.call('GET', lease)
if holder and holder ~= owner then
  -- More is left of it than anybody is ever given: the clock was set back, and it counts from now.
  if redis.call('PTTL', lease) > ms and ms > 0 then redis.call('PEXPIRE', lease, ms) end
  return { 'taken', holder }
end
if ms == 0 then redis.call('DEL', lease) else redis.call('SET', lease, owner, 'PX', ms) end
return { 'ok' }
