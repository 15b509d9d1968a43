-- applyPolicy: has a policy apply to everybody who has none of their own, or to an API key.
-- KEYS[1] newest version of each policy, by name
-- ARGV[1] `default`, or `key:<id>`   ARGV[2] name of the policy, '' for none any more   ARGV[3] how many may have one
-- Returns {'ok'} | {'unknown'} | {'inactive'} | {'full'}
local newest, active, applied = KEYS[1], KEYS[1] .. ':active', KEYS[1] .. ':applied'
if ARGV[2] == '' then
  redis.call('HDEL', applied, ARGV[1])
  return { 'ok' }
end
if redis.call('HEXISTS', newest, ARGV[2]) == 0 then return { 'unknown' } end
if redis.call('HEXISTS', active, ARGV[2]) == 0 then return { 'inactive' } end
local is_new = redis.call('HEXISTS', applied, ARGV[1]) == 0
if is_new and redis.call('HLEN', applied) >= tonumber(ARGV[3]) then return { 'full' } end
redis.call('HSET', applied, ARGV[1], ARGV[2])
return { 'ok' }
