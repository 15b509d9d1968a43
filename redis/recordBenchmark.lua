-- recordBenchmark: keeps the figures of a model on a hardware class; beyond a number of them the oldest go.
-- KEYS[1] benchmarks, by `<body hash>:<exactness key>`
-- ARGV[1] which one   ARGV[2] its figures   ARGV[3] when, ms   ARGV[4] how many are kept
-- Returns {'ok', how many went}
local benchmarks, times = KEYS[1], KEYS[1] .. ':times'
redis.call('HSET', benchmarks, ARGV[1], ARGV[2])
redis.call('ZADD', times, ARGV[3], ARGV[1])
local over = redis.call('ZCARD', times) - tonumber(ARGV[4])
if over <= 0 then return { 'ok', 0 } end
local gone = redis.call('ZRANGE', times, 0, over - 1)
redis.call('ZREMRANGEBYRANK', times, 0, over - 1)
redis.call('HDEL', benchmarks, unpack(gone))
return { 'ok', over }
