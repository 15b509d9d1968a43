-- commitTransition: the one commit. Compares version, cause and attempt; then writes snapshot, history, effects and
--   references.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] expected version   ARGV[2] cause: step | timer | child | event   ARGV[3] suffix of the effect; id of the
--   event
-- ARGV[4] attempt id (step; '' while it has had none)   ARGV[5] direct: apply this now | inbox: apply the head of the
--   inbox | park: append it, this process has no such machine
-- ARGV[6] the inbox entry: appended when the session cannot take the event now ('' first: most need none); in mode
--   inbox the head it must equal
-- ARGV[7] new snapshot   ARGV[8] '' | succeeded | failed   ARGV[9] output or error, JSON   ARGV[10] history entry,
--   without braces and time
-- ARGV[11] history entry of the end, without braces and time ('' while it goes on)   ARGV[12] unpin: clear the
--   exactness key ('' or '1')
-- ARGV[13] what the session waits for from now on ('' while a step of it is open)
-- ARGV[14] '' | `suffix attempt lease-in-ms worker device exactness-key` ('-' for a step that draws nothing): one of
--   the opened steps, leased at once to the worker that brings this result (lease chaining)
-- ARGV[15] session.too_long as the catalogue has it: JSON without braces and message, for a history that is full
-- ARGV[16] n, then n × (references | scratch, SHA-256)   then m and m × (suffix, value of a child or '') of closed
--   effects   then opened effects   then six numbers, `measures` of the prelude: what a step adds to them, or what a
--   child has used
-- Returns {'ok', 'parent' | '', 'taken' | ''}: it has ended, and a parent is to be told; the step is leased |
--   {'conflict', version, snapshot} | {'stale'} | {'missing'} | {'ended', status} | {'inbox'} | {'rests'}: nothing is
--   written, send it again with the entry
local expected, cause, suffix, attempt, mode = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local pending, snapshot, outcome, result = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local entry, last, unpin, parked, chained = ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[14]
local inbox = B .. 'inbox:' .. sid

local state = redis.call('HMGET', S, 'status', 'version', 'inboxed', cause == 'event' and 'seen:' .. suffix or 'open:' .. suffix, 'snapshot')
local status, version = state[1], state[2]
if not status then return { 'missing' } end
if status == 'succeeded' or status == 'failed' or status == 'cancelled' then return { 'ended', status } end

-- What failed on a device has done its work for nothing.
local fails = string.sub(entry, 1, 20) == '"type":"step.failed"'
local stale, isLeased, isOnDevice, yields
if cause == 'event' then
  stale = mode ~= 'inbox' and state[4] and true -- an entry of the inbox was compared when it was appended
else
  stale = not state[4]
  if cause == 'step' and not stale then
    local step = redis.call('HMGET', stepOf(suffix), 'attemptId', 'state', 'lane', 'yield')
    stale = (step[1] or '') ~= attempt or (step[2] == 'delivered') ~= (mode == 'inbox')
    isLeased, isOnDevice, yields = step[2] == 'leased', step[3] == 'gpu', step[4]
  end
end
if mode == 'inbox' and redis.call('LINDEX', inbox, 0) ~= pending then return { 'stale' } end
local function pop()
  redis.call('LPOP', inbox)
  if redis.call('HINCRBY', S, 'inboxed', -1) == 0 then redis.call('ZREM', B .. 'outbox', 'inbox:' .. sid) end
end
-- References count from here on, so that the collector spares them: they are written before anything names them.
local function refer()
  local i = 17
  for _ = 1, tonumber(ARGV[16]) do
    redis.call('SADD', B .. ARGV[i] .. ':' .. sid, ARGV[i + 1])
    if ARGV[i] == 'references' then redis.call('SADD', B .. 'named:' .. ARGV[i + 1], sid) end
    i = i + 2
  end
  return i
end
local taken
if chained ~= '' then
  local next, by, lease, worker, device, exactness = string.match(chained, '^(%S+) (%S+) (%d+) (%S+) (%S+) (%S+)$')
  taken = { suffix = next, attempt = by, lease = tonumber(lease), worker = worker, device = device, exactness = exactness == '-' and '' or exactness }
end
if stale then
  if mode == 'inbox' then pop() end
  -- Sent again because the answer was lost: it gets the same one.
  if taken and redis.call('HGET', stepOf(taken.suffix), 'attemptId') == taken.attempt then return { 'ok', '', 'taken' } end
  return { 'stale' }
end

local resting = status == 'pausing' or status == 'paused'
if mode == 'inbox' and resting then return { 'inbox' } end
if mode == 'park' or (mode == 'direct' and (resting or state[3] ~= '0')) then
  if pending == '' then return { 'rests' } end
  redis.call('RPUSH', inbox, pending)
  redis.call('HINCRBY', S, 'inboxed', 1)
  if cause == 'event' then redis.call('HSET', S, 'seen:' .. suffix, 1) end
  if cause == 'timer' then redis.call('ZREM', B .. 'timers', memberOf(suffix)) end
  if cause == 'child' then
    redis.call('HSET', S, 'rests:' .. suffix, redis.call('HGET', S, 'wish') or '')
    refer()
  end
  if cause == 'step' then
    redis.call('HSET', stepOf(suffix), 'state', 'delivered')
    redis.call('ZREM', B .. 'leases', memberOf(suffix))
    redis.call('ZREM', B .. 'outbox', 'step:' .. memberOf(suffix))
    if isOnDevice then
      freeSlot(suffix)
      leaveDevice(suffix, now, fails)
    end
    refer()
  end
  if resting then settlePause(status) else redis.call('ZADD', B .. 'outbox', now, 'inbox:' .. sid) end
  return { 'inbox' }
end
if version ~= expected then return { 'conflict', version, state[5] } end

if mode == 'inbox' then pop() end
if isOnDevice then
  freeSlot(suffix)
  leaveDevice(suffix, now, fails)
end
if taken and taken.exactness ~= '' then
  -- It was asked to make way, or its pictures are of another hardware class by now: the step waits in its queue.
  local pinned = redis.call('HGET', S, 'exactnessKey')
  if yields or (pinned and pinned ~= taken.exactness) then taken = nil end
end
local i = refer()
local closed, gone = tonumber(ARGV[i]), {}
i = i + 1
for _ = 1, closed do
  if cause == 'child' and ARGV[i] == suffix then
    redis.call('ZREM', B .. 'outbox', childMember(suffix, ARGV[i + 1])) -- it has ended
  else
    dropEffect(ARGV[i], ARGV[i + 1], isLeased and ARGV[i] == suffix)
  end
  gone[#gone + 1] = 'open:' .. ARGV[i]
  if ARGV[i + 1] ~= '' then gone[#gone + 1] = 'rests:' .. ARGV[i] end
  i = i + 2
end
local set = { 'version', version + 1, 'snapshot', snapshot }
if outcome == 'failed' then
  set[#set + 1] = 'before' -- what a retry goes on from
  set[#set + 1] = state[5]
end
if cause == 'event' then
  set[#set + 1] = 'seen:' .. suffix
  set[#set + 1] = 1
end
i = openFrom(i, set, taken)
if cause == 'step' then
  for at, measure in ipairs(measures) do countUse(measure, tonumber(ARGV[i + at - 1])) end
else
  addUse({ unpack(ARGV, i, i + 5) })
end
if parked == '' then
  gone[#gone + 1] = 'parked'
else
  set[#set + 1] = 'parked'
  set[#set + 1] = parked
  if status == 'queued' then
    status = 'running'
    setStatus('queued', status)
    set[#set + 1] = 'startedAt'
    set[#set + 1] = wall
  end
end
redis.call('HSET', S, unpack(set))
if unpin ~= '' then
  gone[#gone + 1] = 'exactnessKey'
  gone[#gone + 1] = 'nowhereSince'
  gone[#gone + 1] = 'waiting'
end
if gone[1] then redis.call('HDEL', S, unpack(gone)) end
local length, told = record(entry), false
if outcome ~= '' then
  told = finish(status, outcome, outcome == 'failed' and 'error' or 'output', result, last)
elseif length >= 9990 then
  local error = '{' .. ARGV[15] .. ',"message":"session ' .. sid .. ' has recorded ' .. length .. ' events"}'
  told = finish(status, 'failed', 'error', error, '"type":"session.failed","error":' .. error)
elseif taken then
  if taken.exactness ~= '' then takeDevice(taken.suffix, taken.worker, taken.exactness) end
  recordStart(taken.suffix, taken.name, taken.attempt, taken.worker, taken.device, taken.exactness, 1, '')
  return { 'ok', '', 'taken' }
end
return { 'ok', told and 'parent' or '', '' }
