-- changeSession: gives a session other tags, or another deadline.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] its tags from now on, JSON ('' keeps them)   ARGV[2] deadline, ms from now ('' keeps it, `none` takes it
--   away)
-- ARGV[3] history entry, without braces and time; of an open session
-- Returns {'ok'} | {'missing'} | {'ended', status}: an ended session has no deadline any more
local tags, deadline, entry = ARGV[1], ARGV[2], ARGV[3]
local session = redis.call('HMGET', S, 'status', 'tags', 'createdAt')
local status = session[1]
if not status then return { 'missing' } end
local isOver = status == 'succeeded' or status == 'failed' or status == 'cancelled'
if isOver and deadline ~= '' then return { 'ended', status } end

if tags ~= '' then
  for _, tag in ipairs(cjson.decode(session[2])) do redis.call('ZREM', B .. 'index:tag:' .. tag, sid) end
  for _, tag in ipairs(cjson.decode(tags)) do redis.call('ZADD', B .. 'index:tag:' .. tag, session[3], sid) end
  redis.call('HSET', S, 'tags', tags)
end
if deadline == 'none' then
  redis.call('HDEL', S, 'open:deadline', 'left:deadline', 'deadlineAt')
  redis.call('ZREM', B .. 'timers', memberOf('deadline'))
elseif deadline ~= '' then
  redis.call('HSET', S, 'open:deadline', 'timer', 'deadlineAt', wall + deadline)
  if status == 'pausing' or status == 'paused' then
    redis.call('HSET', S, 'left:deadline', deadline)
  else
    redis.call('ZADD', B .. 'timers', now + deadline, memberOf('deadline'))
  end
end
if not isOver then record(entry) end
return { 'ok' }
