-- controlSession: pause, resume, cancel. Whichever commit comes first, this one or the last result's, wins.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] pause | resume | cancel   ARGV[2] the parent's control revision that asks for the pause or resume ('' when no
--   parent does); an older one changes nothing
-- Returns {'ok', status} | {'missing'} | {'ended', status}
local verb, revision = ARGV[1], ARGV[2]
local session = redis.call('HMGET', S, 'status', 'startedAt', 'inboxed', 'parentWish')
local status = session[1]
if not status then return { 'missing' } end
if status == 'cancelled' and verb == 'cancel' then return { 'ok', status } end
if status == 'succeeded' or status == 'failed' or status == 'cancelled' then return { 'ended', status } end

if verb == 'cancel' then
  -- A full Redis refuses a script whose first write needs memory; after one that frees some it takes them all, and a
  -- cancel always works.
  redis.call('HDEL', S, 'waiting')
  redis.call('HSET', S, 'desired', 'cancel')
  finish(status, 'cancelled', '', '', '"type":"session.cancelled"')
  return { 'ok', 'cancelled' }
end

if revision ~= '' then
  if session[4] and tonumber(session[4]) >= tonumber(revision) then return { 'ok', status } end
  redis.call('HSET', S, 'parentWish', revision)
end
local resting = status == 'pausing' or status == 'paused'
if verb == 'pause' then
  if resting then return { 'ok', status } end
  redis.call('HSET', S, 'desired', 'pause')
  redis.call('HINCRBY', S, 'wish', 1)
  redis.call('HDEL', S, 'waiting', 'nowhereSince')
  setStatus(status, 'pausing')
  record('"type":"session.pausing"')
  for _, effect in ipairs(openEffects()) do
    local member = memberOf(effect[1])
    if effect[2] == 'timer' then
      local due = redis.call('ZSCORE', B .. 'timers', member)
      if due then
        -- One that was claimed is due, whatever its claim lasts.
        redis.call('HSET', S, 'left:' .. effect[1], due % 1 == 0 and math.max(0, due - now) or 0)
        redis.call('ZREM', B .. 'timers', member)
      end
    elseif isChild(effect[2]) then
      redis.call('ZADD', B .. 'outbox', now, childMember(effect[1], effect[2]))
    else
      redis.call('ZREM', B .. 'outbox', 'step:' .. member)
      leaveLine(effect[1])
      if redis.call('HGET', stepOf(effect[1]), 'state') == 'open' then freeSlot(effect[1]) end
    end
  end
  redis.call('ZREM', B .. 'outbox', 'inbox:' .. sid)
  settlePause('pausing')
  redis.call('PUBLISH', 'darkroom:control', sid)
  return { 'ok', redis.call('HGET', S, 'status') }
end

if not resting then return { 'ok', status } end
redis.call('HSET', S, 'desired', 'run')
redis.call('HINCRBY', S, 'wish', 1)
local to = session[2] and 'running' or 'queued'
setStatus(status, to)
record('"type":"session.resumed"')
for _, effect in ipairs(openEffects()) do
  if effect[2] == 'timer' then
    local left = redis.call('HGET', S, 'left:' .. effect[1])
    if left then
      redis.call('ZADD', B .. 'timers', now + left, memberOf(effect[1]))
      if effect[1] == 'deadline' then redis.call('HSET', S, 'deadlineAt', wall + left) end
      redis.call('HDEL', S, 'left:' .. effect[1])
    end
  elseif isChild(effect[2]) then
    redis.call('ZADD', B .. 'outbox', now, childMember(effect[1], effect[2]))
  elseif redis.call('HGET', stepOf(effect[1]), 'state') == 'open' then
    redis.call('HINCRBY', stepOf(effect[1]), 'dispatch', 1)
    redis.call('HSET', stepOf(effect[1]), 'queue', '', 'attemptId', '')
    enlist(effect[1], 0)
  end
end
if session[3] ~= '0' then redis.call('ZADD', B .. 'outbox', now, 'inbox:' .. sid) end
redis.call('PUBLISH', 'darkroom:control', sid)
return { 'ok', to }
