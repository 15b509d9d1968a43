-- takeSlot: leases one more open stream or wait to an API key, unless it has as many as it may have. What its process
--   does not prolong is free again when the lease ends. Leases beyond the longest there can be are from before Redis'
--   clock was set back, and count no more.
-- KEYS[1] leases of the key, of one kind: member → end
-- ARGV[1] member   ARGV[2] lease, ms   ARGV[3] how many it may have ('' for no limit)
-- Returns {'taken'} | {'full'}
local all, member, lease, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]) or math.huge
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', all, '-inf', now)
redis.call('ZREMRANGEBYSCORE', all, '(' .. (now + lease), '+inf')
if redis.call('ZCARD', all) >= most then return { 'full' } end
redis.call('ZADD', all, now + lease, member)
redis.call('PEXPIRE', all, lease)
return { 'taken' }
