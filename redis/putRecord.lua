-- putRecord: makes, changes or removes one record of a hash of JSON records, unless somebody else has changed it
--   meanwhile; and notes when it is due next.
-- KEYS[1] hash of records by id; those that fall due stand in `<hash>:due`, scored by when
-- ARGV[1] id   ARGV[2] the record as the caller has read it ('' for none)   ARGV[3] the record from now on ('' removes
--   it)   ARGV[4] how many records one API key may have   ARGV[5] when it is due, ms ('' never)
-- ARGV[6] how many entries at the head of `<hash>:left:<id>`, what is left to do, are done ('' none)
-- Returns {'ok'} | {'changed'}: nothing is written, read it again | {'full'}
local id, known, record, most, due, did = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
if (redis.call('HGET', KEYS[1], id) or '') ~= known then return { 'changed' } end
if known == '' then
  local owner, count = cjson.decode(record).keyId, 0
  for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
    if cjson.decode(text).keyId == owner then count = count + 1 end
  end
  if count >= most then return { 'full' } end
end
if record == '' then redis.call('HDEL', KEYS[1], id) else redis.call('HSET', KEYS[1], id, record) end
if did ~= '' then redis.call('LTRIM', KEYS[1] .. ':left:' .. id, did, -1) end
if record == '' or due == '' then
  redis.call('ZREM', KEYS[1] .. ':due', id)
else
  redis.call('ZADD', KEYS[1] .. ':due', due, id)
end
return { 'ok' }
