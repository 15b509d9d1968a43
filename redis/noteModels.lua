-- noteModels: writes what the keeper of a shelf has found of its models, and numbers the change for who reads it.
-- KEYS[1] models, by path
-- ARGV[1] the keeper's token   ARGV[2] how long the index stays, ms
-- ARGV[3] and on: a path and its entry, '' when it is gone
-- Returns {'ok', version} | {'lost'}: another process is its keeper now
local models = KEYS[1]
local base = string.match(models, '^(.*:)models$')
if redis.call('GET', base .. 'keeper') ~= ARGV[1] then return { 'lost' } end
local changes, version = base .. 'changes', base .. 'version'
local now = tonumber(redis.call('GET', version) or '0')
if #ARGV > 3 then now = redis.call('INCR', version) end
for i = 3, #ARGV - 1, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', models, ARGV[i]) else redis.call('HSET', models, ARGV[i], ARGV[i + 1]) end
  redis.call('ZADD', changes, now, ARGV[i])
end
for _, key in ipairs({ models, changes, version }) do redis.call('PEXPIRE', key, ARGV[2]) end
return { 'ok', now }
