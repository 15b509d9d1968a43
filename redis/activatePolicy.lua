-- activatePolicy: has a version of a policy apply from now on, or the one before it again.
-- KEYS[1] newest version of each policy, by name
-- ARGV[1] name   ARGV[2] version, '' for the one before   ARGV[3] when, ms   ARGV[4] who, as JSON
-- ARGV[5] how many changes are remembered   ARGV[6] the version that must be in force now, 0 for none; '' for any
-- Returns {'ok', version} | {'unknown'} | {'nothing'}: none was in force before | {'changed', version in force}
local newest, active, before, changes = KEYS[1], KEYS[1] .. ':active', KEYS[1] .. ':before:' .. ARGV[1], KEYS[1] .. ':changes:' .. ARGV[1]
local last = tonumber(redis.call('HGET', newest, ARGV[1]) or 0)
if last == 0 then return { 'unknown' } end
local now = tonumber(redis.call('HGET', active, ARGV[1]) or 0)
if ARGV[6] ~= '' and tonumber(ARGV[6]) ~= now then return { 'changed', now } end
local version, verb = tonumber(ARGV[2]), 'activated'
if ARGV[2] == '' then
  verb = 'rolled back'
  version = tonumber(redis.call('LPOP', before) or 0)
  if version == 0 then return { 'nothing' } end
else
  if version < 1 or version > last then return { 'unknown' } end
  if version == now then return { 'ok', version } end
  if now > 0 then
    redis.call('LPUSH', before, now)
    redis.call('LTRIM', before, 0, ARGV[5] - 1)
  end
end
redis.call('HSET', active, ARGV[1], version)
redis.call('LPUSH', changes, '{"at":' .. ARGV[3] .. ',"by":' .. ARGV[4] .. ',"change":"' .. verb .. '","version":' .. version .. '}')
redis.call('LTRIM', changes, 0, ARGV[5] - 1)
return { 'ok', version }
