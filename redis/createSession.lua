-- createSession: writes a new session whole, or answers which session the idempotency key already stands for.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] idempotency record's key ('' without one)   ARGV[2] SHA-256 of the body as sent   ARGV[3] time to live of the
--   record, seconds
-- ARGV[4] deadline, ms from now ('' without one)   ARGV[5] first history entry, without braces and time
-- ARGV[6] session of the same shard to take things over from ('' for none)   ARGV[7] retry: all its references | fork:
--   those listed below alone | undo: none, and its outbox asks for this session until it is made
-- ARGV[8] suffix of the step that goes on from a checkpoint ('' for none)   ARGV[9] suffix of the other session's step
--   that must have that checkpoint still   ARGV[10] the checkpoint as it is recorded there, JSON
-- ARGV[11] what it waits for ('' while a step of it is open)   ARGV[12] '' | succeeded | failed | cancelled: it has
--   ended when it is made   ARGV[13] its output or error, JSON ('' for neither)
-- ARGV[14] history entry of that end, without braces and time
-- ARGV[15] the count of open sessions that it is one of: `<sessions or commands>:<API key>` ('' for none)
-- ARGV[16] how many there may be of them ('' for no limit)
-- ARGV[17] n, then n index names (`workflow:…`, `tag:…`, `key:…`)   then p and p × SHA-256 of the pictures that it
--   names   then s and s × SHA-256 of what its steps need   then m and m × (field, value) of the session hash   then
--   opened effects
--   then bytes that it may need until it ends   then what each of its items has of its own, JSON
-- Returns {'created', when, 'parent' | ''}: it has ended, and a parent is to be told | {'exists', session id, SHA-256
--   of its body} | {'gone'}: the session to take over from was deleted | {'moved'}: it has that checkpoint no longer |
--   {'full'}: there are as many as there may be
local idempotency, bodySha, ttl, deadline, entry, copied = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local forked, checkpointed, checkpoint = ARGV[8], ARGV[9], ARGV[10]
local parked, outcome, result, last = ARGV[11], ARGV[12], ARGV[13], ARGV[14]
local counted, most = ARGV[15], tonumber(ARGV[16])
local status = parked == '' and 'queued' or 'running'
if idempotency ~= '' then
  local known = redis.call('HMGET', idempotency, 'session', 'body')
  if known[1] then return { 'exists', known[1], known[2] } end
end
if redis.call('EXISTS', S) == 1 then return { 'exists', sid, bodySha } end
if copied ~= '' and redis.call('EXISTS', B .. 'session:' .. copied) == 0 then return { 'gone' } end
local undone = ARGV[7] == 'undo' and 'undo:' .. copied
if undone and not redis.call('ZSCORE', B .. 'outbox', undone) then return { 'gone' } end
if forked ~= '' then
  local kept = redis.call('HMGET', B .. 'step:' .. copied .. '.' .. checkpointed, 'checkpoint', 'checkpointBefore')
  if kept[1] ~= checkpoint and kept[2] ~= checkpoint then return { 'moved' } end
end
if most and redis.call('ZCARD', B .. 'index:open:' .. counted) >= most then return { 'full' } end

redis.call('HINCRBY', B .. 'totals', 'created', 1)
local set = { 'status', status, 'desired', 'run', 'version', 1, 'createdAt', wall, 'inboxed', 0 }
redis.call('ZADD', B .. 'index:all', wall, sid)
redis.call('ZADD', B .. 'index:status:' .. status, wall, sid)
if counted ~= '' then
  redis.call('ZADD', B .. 'index:open:' .. counted, wall, sid)
  set[#set + 1] = 'counted'
  set[#set + 1] = counted
end
local i = 18
for _ = 1, tonumber(ARGV[17]) do
  redis.call('ZADD', B .. 'index:' .. ARGV[i], wall, sid)
  i = i + 1
end
local pictures = tonumber(ARGV[i])
i = i + 1
for _ = 1, pictures do
  redis.call('SADD', B .. 'references:' .. sid, ARGV[i])
  redis.call('SADD', B .. 'named:' .. ARGV[i], sid)
  i = i + 1
end
local scratch = tonumber(ARGV[i])
i = i + 1
for _ = 1, scratch do
  redis.call('SADD', B .. 'scratch:' .. sid, ARGV[i])
  i = i + 1
end
local fields = tonumber(ARGV[i])
i = i + 1
for _ = 1, fields do
  set[#set + 1] = ARGV[i]
  set[#set + 1] = ARGV[i + 1]
  i = i + 2
end
i = openFrom(i, set)
if forked ~= '' then keepCheckpoint(forked, cjson.decode(checkpoint).sha256, checkpoint) end
set[#set + 1] = 'reserve'
set[#set + 1] = ARGV[i]
redis.call('INCRBY', B .. 'reserved', ARGV[i])
-- Lua hands a thousand values over at once; of some thousands more it would not.
for from = i + 1, #ARGV, 1000 do redis.call('RPUSH', B .. 'items:' .. sid, unpack(ARGV, from, math.min(from + 999, #ARGV))) end
if parked ~= '' then
  for _, value in ipairs({ 'parked', parked, 'startedAt', wall }) do set[#set + 1] = value end
end
if deadline ~= '' then
  set[#set + 1] = 'deadlineAt'
  set[#set + 1] = wall + deadline
  set[#set + 1] = 'open:deadline'
  set[#set + 1] = 'timer'
  redis.call('ZADD', B .. 'timers', now + deadline, memberOf('deadline'))
end
redis.call('HSET', S, unpack(set))
for _, sha in ipairs(ARGV[7] == 'retry' and redis.call('SMEMBERS', B .. 'references:' .. copied) or {}) do
  redis.call('SADD', B .. 'references:' .. sid, sha)
  redis.call('SADD', B .. 'named:' .. sha, sid)
end
if idempotency ~= '' then
  redis.call('HSET', idempotency, 'session', sid, 'body', bodySha)
  redis.call('EXPIRE', idempotency, ttl)
end
if undone then redis.call('ZREM', B .. 'outbox', undone) end
record(entry)
local told
if outcome ~= '' then
  local field = result ~= '' and (outcome == 'failed' and 'error' or 'output') or ''
  told = finish(status, outcome, field, result, last)
end
return { 'created', wall, told and 'parent' or '' }
