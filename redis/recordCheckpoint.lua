-- recordCheckpoint: from now on the step can go on from these bytes. The one before is kept, the one before that is
--   dropped.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] attempt id   ARGV[3] SHA-256   ARGV[4] {sha256, bytes, call}, JSON
-- Returns {'ok'} | {'stale'}
local suffix, attempt, sha, json = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local step = redis.call('HMGET', stepOf(suffix), 'attemptId', 'state')
if step[1] ~= attempt or step[2] == 'delivered' then return { 'stale' } end
keepCheckpoint(suffix, sha, json)
return { 'ok' }
