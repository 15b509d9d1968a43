-- admitStep: lets a session in: its step leaves the line and has a slot from now on, its job may go to the line's
--   queue.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] the line that it waits in   ARGV[3] how many this shard had let in when its lines were read
-- ARGV[4] place of the job in its queue   ARGV[5] the fair share of its API key from now on   ARGV[6] the floor of all
-- ARGV[7] the queue that its job goes to: the line's, or that of one worker of those that take from it
-- ARGV[8] n, then n API keys whose shares the floor has overtaken
-- Returns {'ok', dispatch, name of the step} | {'conflict'}: another process has let one in since | {'stale'}: it is
--   not in that line
local suffix, line, number, priority, share, floor, target = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local turns = B .. 'turns'
if (redis.call('HGET', turns, 'number') or '0') ~= number then return { 'conflict' } end
local step = redis.call('HMGET', stepOf(suffix), 'state', 'line', 'dispatch', 'name')
if step[1] ~= 'open' or step[2] ~= line then
  redis.call('ZREM', B .. 'line:' .. line, memberOf(suffix)) -- nobody shall come upon it again
  if redis.call('EXISTS', B .. 'line:' .. line) == 0 then redis.call('SREM', B .. 'lines', line) end
  return { 'stale' }
end
local queue, ownPriority, key, group = string.match(line, '^(%S+) (%S+) (%S+) (%S+)')
leaveLine(suffix)
redis.call('HSET', stepOf(suffix), 'queue', target, 'placedAt', now, 'priority', priority)
holdSlot(suffix, target, key, group, ownPriority, '-')
for i = 9, 8 + tonumber(ARGV[8]) do redis.call('HDEL', turns, 'key:' .. ARGV[i]) end
redis.call('HSET', turns, 'number', number + 1, 'key:' .. key, share, 'floor', floor)
redis.call('HSET', S, 'admitted', queue)
redis.call('HDEL', S, 'waiting')
enlist(suffix, 1000) -- by then this process has added the job, or died
return { 'ok', step[3], step[4] }
