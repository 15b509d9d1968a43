-- holdSlots: prolongs the leases of open streams or waits. They are open, so one that had ended counts again.
-- KEYS[1] leases of the key, of one kind: member → end
-- ARGV[1] lease, ms   ARGV[2] members, with a blank between two
-- Returns {'held'}
local clock = redis.call('TIME')
local till = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])
for member in string.gmatch(ARGV[2], '%S+') do redis.call('ZADD', KEYS[1], till, member) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return { 'held' }
