-- Prelude: what the scripts over one session share. The loader puts it in front of every script whose header says
-- `Uses: prelude`. A script's KEYS[1] is the session key `darkroom:{s<n>}:session:<id>`; every other key it touches
-- shares that hash tag and is derived here.
--
-- Session hash: status version desired workflow input snapshot … and
--   `open:<suffix>` = step | timer | `<child id>:<workflow>` for every open effect; `items` for the one that works its
--     items off, whose children stand beside it as `<suffix>.<index>`
--   `items:…` = how many items there are, have ended and how, are opened; the window, and the rest of moveItems.lua
--   `left:<suffix>` = milliseconds left of a timer that pause took out of its due list
--   `createdAt`, `startedAt`, `endedAt`, `deadlineAt` as the wall clock had it; all other times are clock.lua's
--   `seen:<event id>` for outside events already applied
--   `parked` = what it waits for while no step is open
--   `exact`, `strict` = 1 for what its workflow promises of it; `undoes` = 1 where that names what undoes its steps
--   `wish` = the control revision, which counts pauses and resumes
--   `counted` = the count of open sessions that it is one of
--   `rests:<suffix>` = the control revision that a child has come to rest with
--   `admitted` = the queue that it was let in to; `onDeviceSince` = when a device first took a step of it after that
--   `order` = since when it waits in line, as its place is reckoned; `model` = the model that it draws with, as a line
--     has it
--   `yielded` = 1 once it has made way for an urgent one
--   `group` = `<concurrency key>/<limit>`: how many of its API key's sessions with that key may be on devices at once
--   `trace` = `<trace id>-<span id>`: the span of OpenTelemetry that caused it, where there is one
--   `webhook` = the webhook that is told of its end
--   `use:…` = what it has used, its children's with it (src/engine/usage.ts)
-- Of a child: `parent` = step key of the effect it is, `parentWish` = its parent's last control revision it followed.
--
-- Step hash: name invoke lane priority state (open | leased | delivered) dispatch epoch attemptId worker leaseUntil
--   notBefore tries resourceTries expiries checkpoint checkpointBefore queue placedAt
--   `avoid` = the worker that its last attempt failed on
--   `line` = `<queue> <priority> <API key> <group> <model>`, the line in which it waits to be let in
--   `yield` = its attempt is asked to make way for an urgent session
--   `since` = since when its attempt holds a device; `keptAt` = when that recorded its last checkpoint; `lost` = what
--     the last attempt was said to have lost, ms
--
-- Admission, of a shard:
--   `line:<line>` = the steps that wait in it, by their session's `order`; `lines` = those that are not empty
--   `slots` = holder of each slot by step: `<worker, or the queue with its job> <API key> <group> <priority> <state>`;
--     the state is -, asked (to make way) or yielded (it has done so)
--   `turns` = what was let in: `number` so far, `floor` and `key:<API key>` of the fair shares (turns.ts),
--     `pace:<queue>` = how long a session takes, ms
-- Use of a shard by API key, `use:<API key>`: `<day since 1970> <measure>`, of the newest 31 days
local S = KEYS[1]
local B, sid = string.match(S, '^(.-:)session:(.+)$')
local now, wall = farmTime(B)

local function stepOf(suffix) return B .. 'step:' .. sid .. '.' .. suffix end
local function memberOf(suffix) return sid .. '.' .. suffix end

-- Appends one history entry (a JSON object without its braces and time) and wakes who watches. Returns the history's
-- length.
local function record(fragment)
  local length = redis.call('RPUSH', B .. 'history:' .. sid, '{"at":' .. wall .. ',' .. fragment .. '}')
  redis.call('PUBLISH', B .. 'events:' .. sid, '')
  return length
end

local function setStatus(from, to)
  local created = redis.call('HGET', S, 'createdAt')
  redis.call('ZREM', B .. 'index:status:' .. from, sid)
  redis.call('ZADD', B .. 'index:status:' .. to, created, sid)
  redis.call('HSET', S, 'status', to)
end

local function isChild(value) return value ~= 'step' and value ~= 'timer' end

-- Suffixes of the open effects, with their values.
local function openEffects()
  local all, list = redis.call('HGETALL', S), {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 5) == 'open:' then list[#list + 1] = { string.sub(all[i], 6), all[i + 1] } end
  end
  return list
end

-- What the outbox holds for a child session: enough to cancel it once its parent's records are gone.
local function childMember(suffix, child) return 'child:' .. memberOf(suffix) .. ':' .. child end

-- Takes a step out of the line in which it waits, if it does.
local function leaveLine(suffix)
  local line = redis.call('HGET', stepOf(suffix), 'line')
  if not line then return end
  redis.call('HDEL', stepOf(suffix), 'line')
  redis.call('ZREM', B .. 'line:' .. line, memberOf(suffix))
  if redis.call('EXISTS', B .. 'line:' .. line) == 0 then redis.call('SREM', B .. 'lines', line) end
end

-- Puts a step into a line.
local function enterLine(suffix, queue, priority, key, group, order)
  local model = redis.call('HGET', S, 'model') or '-'
  local line = queue .. ' ' .. priority .. ' ' .. (key or 'local') .. ' ' .. (group or '-') .. ' ' .. model
  redis.call('HSET', stepOf(suffix), 'line', line)
  redis.call('ZADD', B .. 'line:' .. line, order, memberOf(suffix))
  redis.call('SADD', B .. 'lines', line)
end

-- Its slot is free again.
local function freeSlot(suffix) redis.call('HDEL', B .. 'slots', memberOf(suffix)) end

-- `holder` is the worker that runs it, or the queue that has its job.
local function holdSlot(suffix, holder, key, group, priority, state)
  redis.call('HSET', B .. 'slots', memberOf(suffix), holder .. ' ' .. (key or 'local') .. ' ' .. (group or '-') .. ' ' .. priority .. ' ' .. state)
end

-- Of a step on a device that an attempt of `worker` has leased: it has the slot, and an exact session stays with that
-- hardware class.
local function takeDevice(suffix, worker, exactness)
  local of = redis.call('HMGET', S, 'keyId', 'group', 'priority', 'yielded', 'exact', 'onDeviceSince')
  holdSlot(suffix, worker, of[1], of[2], of[3] or '5', of[4] and 'yielded' or '-')
  redis.call('HSET', stepOf(suffix), 'since', now)
  redis.call('HDEL', stepOf(suffix), 'keptAt', 'lost')
  if not of[6] then redis.call('HSET', S, 'onDeviceSince', now) end
  if of[5] == '1' and exactness ~= '' then redis.call('HSET', S, 'exactnessKey', exactness, 'lastWorker', worker) end
end

-- Counts what a session uses, for the session and for its API key's day (UTC).
local function countDay(key, measure, n)
  local all, day = B .. 'use:' .. (key or 'local'), math.floor(wall / 86400000)
  if redis.call('HINCRBY', all, day .. ' ' .. measure, n) ~= n then return end
  -- The first of a day: those that are too old go, and the key itself when nobody uses anything any more.
  for _, field in ipairs(redis.call('HKEYS', all)) do
    if tonumber(string.match(field, '^%d+')) <= day - 31 then redis.call('HDEL', all, field) end
  end
  redis.call('EXPIRE', all, 32 * 86400)
end
local function countUse(measure, n)
  if n == 0 then return end
  redis.call('HINCRBY', S, 'use:' .. measure, n)
  countDay(redis.call('HGET', S, 'keyId'), measure, n)
end
-- What a child has used, which its own commits have counted for the day.
local measures = { 'ms', 'lost', 'kept', 'scratch', 'hits', 'misses' }
local function addUse(values)
  for i, measure in ipairs(measures) do
    if tonumber(values[i] or 0) ~= 0 then redis.call('HINCRBY', S, 'use:' .. measure, values[i]) end
  end
end

-- The attempt that held a device ends at `till`: its time counts; where it `fails`, what no checkpoint keeps of it is
-- lost.
local function leaveDevice(suffix, till, fails)
  local step = redis.call('HMGET', stepOf(suffix), 'since', 'keptAt')
  if not step[1] then return end
  redis.call('HDEL', stepOf(suffix), 'since', 'keptAt', 'lost')
  countUse('ms', math.max(0, math.floor(till - step[1])))
  if not fails then return end
  local lost = math.max(0, math.floor(till - (step[2] or step[1])))
  countUse('lost', lost)
  redis.call('HSET', stepOf(suffix), 'lost', lost)
end

-- Forgets an open effect. A leased step is neither a timer nor in the outbox. `child` is the value of a child's effect,
-- '' for steps and timers: it is cancelled through the outbox.
local function dropEffect(suffix, child, isLeased)
  if child ~= '' then return redis.call('ZADD', B .. 'outbox', now, childMember(suffix, child)) end
  local member = memberOf(suffix)
  leaveDevice(suffix, now, false)
  if not isLeased then
    leaveLine(suffix)
    freeSlot(suffix)
  end
  redis.call('DEL', stepOf(suffix))
  redis.call('ZREM', B .. 'leases', member)
  if isLeased then return end
  redis.call('ZREM', B .. 'timers', member)
  redis.call('ZREM', B .. 'outbox', 'step:' .. member)
end

-- What a webhook is told of the session's end, in a record of its own: it may be told long after the session is gone.
local function oweDelivery(webhook, status)
  local told = { 'webhook', webhook, 'state', 'pending', 'tries', 0, 'status', status }
  local names = { 'workflow', 'tags', 'output', 'error', 'retryOf', 'createdAt', 'startedAt', 'endedAt' }
  local values = redis.call('HMGET', S, unpack(names))
  for i, name in ipairs(names) do
    if values[i] then
      told[#told + 1] = name
      told[#told + 1] = values[i]
    end
  end
  redis.call('HSET', B .. 'delivery:' .. sid, unpack(told))
  redis.call('ZADD', B .. 'deliveries:pending:' .. webhook, now, sid)
  redis.call('ZADD', B .. 'webhooks', 'LT', now, webhook)
end

-- The one end of a session: closes every effect, so that later writes are stale, and tells lease holders. Returns its
-- parent's step key, if it has one.
local function finish(from, status, field, json, fragment)
  local gone = { 'waiting', 'parked', 'nowhereSince', 'reserve', 'order', 'yielded' }
  for _, effect in ipairs(openEffects()) do
    dropEffect(effect[1], isChild(effect[2]) and effect[2] or '')
    gone[#gone + 1] = 'open:' .. effect[1]
    gone[#gone + 1] = (isChild(effect[2]) and 'rests:' or 'left:') .. effect[1]
  end
  local held = redis.call('HMGET', S, 'reserve', 'parent', 'counted', 'undoes', 'admitted', 'onDeviceSince', 'webhook', 'keyId')
  local reserve = held[1]
  if held[5] then
    -- A fifth of the newest: what a session takes follows what people draw now.
    local pace = held[6] and status == 'succeeded' and tonumber(redis.call('HGET', B .. 'turns', 'pace:' .. held[5]) or now - held[6])
    if pace then redis.call('HSET', B .. 'turns', 'pace:' .. held[5], math.floor(0.8 * pace + 0.2 * (now - held[6]) + 0.5)) end
    gone[#gone + 1] = 'admitted'
    gone[#gone + 1] = 'onDeviceSince'
  end
  redis.call('HDEL', S, unpack(gone))
  if reserve then redis.call('DECRBY', B .. 'reserved', reserve) end
  if held[3] then redis.call('ZREM', B .. 'index:open:' .. held[3], sid) end
  redis.call('DEL', B .. 'inbox:' .. sid, B .. 'scratch:' .. sid, B .. 'preview:' .. sid)
  redis.call('ZREM', B .. 'outbox', 'inbox:' .. sid)
  redis.call('HSET', S, 'endedAt', wall, 'inboxed', 0)
  if field ~= '' then redis.call('HSET', S, field, json) end
  setStatus(from, status)
  redis.call('HINCRBY', B .. 'totals', status, 1)
  redis.call('ZADD', B .. 'index:ended', now, sid)
  if held[7] then oweDelivery(held[7], status) end
  countDay(held[8], 'sessions', 1)
  record(fragment)
  if held[2] then redis.call('ZADD', B .. 'outbox', now, 'parent:' .. sid) end
  if held[4] and status ~= 'succeeded' then redis.call('ZADD', B .. 'outbox', now, 'undo:' .. sid) end
  redis.call('PUBLISH', 'darkroom:control', sid)
  return held[2]
end

-- Makes an open step known to the dispatchers, `delay` milliseconds from now.
local function enlist(suffix, delay) redis.call('ZADD', B .. 'outbox', now + delay, 'step:' .. memberOf(suffix)) end

-- Tells that an attempt has begun. `more` is what it goes on from, as further fields.
local function recordStart(suffix, name, attempt, worker, device, exactness, epoch, more)
  return record('"type":"step.started","key":"' .. memberOf(suffix) .. '","step":"' .. name .. '","attemptId":"' .. attempt .. '","worker":"' .. worker
    .. '","device":"' .. device .. '","exactnessKey":"' .. exactness .. '","epoch":' .. epoch .. more)
end

-- Opens the effects listed in ARGV from position i: a count and (suffix, name, invoke id, lane, priority) for steps,
-- then a count and (suffix, delay in ms) for timers, then a count and (suffix, value) for children. An outbox entry
-- falls due after a second: by then the committing process has dispatched it, or died. The step `taken.suffix` is
-- leased at once, to the attempt that `taken` describes, and needs no dispatch; its name is put there.
local function openFrom(i, set, taken)
  local steps = tonumber(ARGV[i])
  i = i + 1
  for _ = 1, steps do
    local suffix = ARGV[i]
    set[#set + 1] = 'open:' .. suffix
    set[#set + 1] = 'step'
    if taken and taken.suffix == suffix then
      redis.call('HSET', stepOf(suffix), 'name', ARGV[i + 1], 'invoke', ARGV[i + 2], 'lane', ARGV[i + 3], 'priority', ARGV[i + 4], 'state', 'leased', 'dispatch', '1',
        'attemptId', taken.attempt, 'worker', taken.worker, 'epoch', 1, 'leaseUntil', now + taken.lease)
      redis.call('ZADD', B .. 'leases', now + taken.lease, memberOf(suffix))
      taken.name = ARGV[i + 1]
    else
      redis.call('HSET', stepOf(suffix), 'name', ARGV[i + 1], 'invoke', ARGV[i + 2], 'lane', ARGV[i + 3], 'priority', ARGV[i + 4], 'state', 'open', 'dispatch', '1')
      enlist(suffix, 1000)
    end
    i = i + 5
  end
  local timers = tonumber(ARGV[i])
  i = i + 1
  for _ = 1, timers do
    set[#set + 1] = 'open:' .. ARGV[i]
    set[#set + 1] = 'timer'
    redis.call('ZADD', B .. 'timers', now + ARGV[i + 1], memberOf(ARGV[i]))
    i = i + 2
  end
  local children = tonumber(ARGV[i])
  i = i + 1
  for _ = 1, children do
    set[#set + 1] = 'open:' .. ARGV[i]
    set[#set + 1] = ARGV[i + 1]
    redis.call('ZADD', B .. 'outbox', now + 1000, childMember(ARGV[i], ARGV[i + 1]))
    i = i + 2
  end
  return i
end

-- `pausing` is over when no attempt of the session holds a lease, and its children rest.
local function settlePause(status)
  if status ~= 'pausing' then return end
  for _, effect in ipairs(openEffects()) do
    if isChild(effect[2]) then
      local rests = redis.call('HMGET', S, 'rests:' .. effect[1], 'wish')
      if not rests[1] or rests[1] ~= rests[2] then return end
    elseif effect[2] == 'step' and redis.call('HGET', stepOf(effect[1]), 'state') == 'leased' then
      return
    end
  end
  -- What rests has no slot, and waits for its turn again.
  redis.call('HDEL', S, 'admitted', 'onDeviceSince')
  setStatus('pausing', 'paused')
  record('"type":"session.paused"')
end

-- Puts a step back after its attempt has ended. While the session pauses nothing is enlisted: resume does that.
local function reopen(suffix, status, delay)
  redis.call('ZREM', B .. 'leases', memberOf(suffix))
  freeSlot(suffix)
  redis.call('HSET', stepOf(suffix), 'state', 'open', 'notBefore', now + delay, 'queue', '')
  redis.call('HDEL', stepOf(suffix), 'yield')
  if status == 'pausing' or status == 'paused' then return settlePause(status) end
  redis.call('HINCRBY', stepOf(suffix), 'dispatch', 1)
  enlist(suffix, delay)
end

-- The checkpoint before the last is kept: a broken one falls back to it. The last one again, as a pause right after it
-- gives, is no newer one.
local function keepCheckpoint(suffix, sha, json)
  local step = stepOf(suffix)
  local known = redis.call('HMGET', step, 'checkpoint', 'checkpointBefore')
  local newest = known[1] and cjson.decode(known[1])
  if newest and newest.sha256 == sha then return end
  -- Of one call one is kept: two would leave no other call to fall back to.
  if newest and newest.call == cjson.decode(json).call then
    redis.call('SREM', B .. 'scratch:' .. sid, newest.sha256)
    known = {}
  end
  if known[2] then redis.call('SREM', B .. 'scratch:' .. sid, cjson.decode(known[2]).sha256) end
  if known[1] then redis.call('HSET', step, 'checkpointBefore', known[1]) end
  redis.call('HSET', step, 'checkpoint', json, 'expiries', 0, 'keptAt', now)
  redis.call('SADD', B .. 'scratch:' .. sid, sha)
end
