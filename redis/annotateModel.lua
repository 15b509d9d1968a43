-- annotateModel: writes what somebody says of a model, and numbers the change for who reads it.
-- KEYS[1] annotations, by body hash
-- ARGV[1] body hash   ARGV[2] the annotation, '' for none any more   ARGV[3] how many models may have one
-- Returns {'ok', version} | {'full'}
local annotations, version = KEYS[1], KEYS[1] .. ':version'
if ARGV[2] == '' then
  redis.call('HDEL', annotations, ARGV[1])
else
  local is_new = redis.call('HEXISTS', annotations, ARGV[1]) == 0
  if is_new and redis.call('HLEN', annotations) >= tonumber(ARGV[3]) then return { 'full' } end
  redis.call('HSET', annotations, ARGV[1], ARGV[2])
end
return { 'ok', redis.call('INCR', version) }
