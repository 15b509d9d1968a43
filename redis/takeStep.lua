-- takeStep: leases an open step to one attempt. The same attempt asking again gets the same answer. A lease that has
--   ended is for the sweep to declare dead (expireLease), which alone knows whether Redis was away: no other attempt
--   takes the step before.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] suffix   ARGV[2] dispatch   ARGV[3] attempt id   ARGV[4] worker   ARGV[5] device id
-- ARGV[6] exactness key of the worker ('' for a step that draws nothing)   ARGV[7] lease, ms
-- Returns {'taken', `epoch version tries resourceTries priority trace` (the last two of the session), snapshot,
--   workflow, checkpoint, the one before: none where there is none} | {'leased', ms left} | {'early', ms left} |
--   {'paused'} | {'closed'} | {'stale'} | {'elsewhere'}: pinned to another exactness key, dispatched again
local suffix, dispatch, attempt, worker, device, exactness, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local session = redis.call('HMGET', S, 'status', 'version', 'snapshot', 'exactnessKey', 'waiting', 'exact', 'workflow', 'priority', 'trace')
local status = session[1]
if not status then return { 'closed' } end
local key = stepOf(suffix)
local step = redis.call('HMGET', key, 'state', 'dispatch', 'attemptId', 'leaseUntil', 'notBefore', 'epoch', 'checkpoint', 'checkpointBefore', 'tries', 'resourceTries', 'name', 'lane', 'line')
local state = step[1]
if not state or state == 'delivered' then return { 'closed' } end

local function answer(epoch)
  local numbers = epoch .. ' ' .. session[2] .. ' ' .. (step[9] or '0') .. ' ' .. (step[10] or '0') .. ' ' .. (session[8] or '5') .. ' ' .. (session[9] or '')
  return { 'taken', numbers, session[3], session[7], step[7] or nil, step[8] or nil }
end
if state == 'leased' and step[3] == attempt then return answer(step[6]) end
if status == 'paused' or status == 'pausing' then return { 'paused' } end
if step[2] ~= dispatch then return { 'stale' } end
if state == 'leased' then return { 'leased', math.max(tonumber(step[4]) - now, 1000) } end
if step[5] and tonumber(step[5]) > now then return { 'early', step[5] - now } end
local pins = step[12] == 'gpu' and session[6] == '1' and exactness ~= ''
if pins and session[4] and session[4] ~= exactness then
  redis.call('HINCRBY', key, 'dispatch', 1)
  redis.call('HSET', key, 'queue', '')
  freeSlot(suffix)
  enlist(suffix, 0)
  return { 'elsewhere' }
end

local epoch, untilMs = (tonumber(step[6]) or 0) + 1, now + lease
redis.call('HSET', key, 'state', 'leased', 'attemptId', attempt, 'worker', worker, 'epoch', epoch, 'leaseUntil', untilMs)
redis.call('ZADD', B .. 'leases', untilMs, memberOf(suffix))
redis.call('ZREM', B .. 'outbox', 'step:' .. memberOf(suffix))
if step[13] then leaveLine(suffix) end
if step[12] == 'gpu' then takeDevice(suffix, worker, exactness) end
if status == 'queued' then
  setStatus('queued', 'running')
  redis.call('HSET', S, 'startedAt', wall)
end
if session[5] then redis.call('HDEL', S, 'waiting', 'nowhereSince') end
local resumed = ''
if step[7] then resumed = ',"checkpoint":' .. step[7] end
if step[8] then resumed = resumed .. ',"checkpointBefore":' .. step[8] end
recordStart(suffix, step[11], attempt, worker, device, exactness, epoch, resumed)
return answer(epoch)
