-- readWorkers: the records that count, and removes those whose time is over.
-- KEYS[1] workers, scored by when their record ends
-- Returns {'ok', time, then of each worker when its record ends, and the record}
local tag = string.match(KEYS[1], '^.-}:')
local now = farmTime(tag)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('DEL', tag .. 'worker:' .. id)
  redis.call('ZREM', KEYS[1], id)
end
local found = { 'ok', now }
local living = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #living, 2 do
  found[#found + 1] = living[i + 1]
  found[#found + 1] = redis.call('GET', tag .. 'worker:' .. living[i]) or ''
end
return found
