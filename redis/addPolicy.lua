-- addPolicy: writes the next version of a policy. Versions never change and never go.
-- KEYS[1] newest version of each policy, by name
-- ARGV[1] name   ARGV[2] the version, as JSON
-- ARGV[3] how many policies there may be   ARGV[4] how many versions of one
-- Returns {'ok', version} | {'full'}
local newest, versions = KEYS[1], KEYS[1] .. ':versions'
local last = tonumber(redis.call('HGET', newest, ARGV[1]) or 0)
if last == 0 and redis.call('HLEN', newest) >= tonumber(ARGV[3]) then return { 'full' } end
if last >= tonumber(ARGV[4]) then return { 'full' } end
redis.call('HSET', versions, ARGV[1] .. '@' .. (last + 1), ARGV[2])
redis.call('HSET', newest, ARGV[1], last + 1)
return { 'ok', last + 1 }
