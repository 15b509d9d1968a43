-- publishWorker: a worker's record and the queues that it serves, which count from now for so long.
-- KEYS[1] workers, scored by when their record ends
-- ARGV[1] worker   ARGV[2] record, JSON   ARGV[3] how long it counts, ms   ARGV[4] how long its queues do, ms
-- ARGV further: the queues
-- Returns {'ok'}
local tag = string.match(KEYS[1], '^.-}:')
local now = farmTime(tag)
redis.call('SET', tag .. 'worker:' .. ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
for i = 5, #ARGV do redis.call('ZADD', tag .. 'serving', now + ARGV[4], ARGV[i]) end
return { 'ok' }
