-- takeTurn: hands a turn to one process of those that ask, and to nobody else for a while.
-- KEYS[1] the turn: until when it is somebody's
-- ARGV[1] how long, ms
-- Returns {'ok'} | {'taken'}
local now = farmTime(string.match(KEYS[1], '^.-}:'))
local taken = tonumber(redis.call('GET', KEYS[1]) or 0)
if taken and taken > now then return { 'taken' } end
redis.call('SET', KEYS[1], now + ARGV[1])
return { 'ok' }
