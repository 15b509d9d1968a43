-- createSession: writes a new session whole, or answers which session the idempotency key already stands for.
-- Uses: prelude
-- KEYS[1] session
-- ARGV[1] idempotency record's key ('' without one)   ARGV[2] SHA-256 of the body as sent   ARGV[3] time to live of the
--   record, seconds
-- ARGV[4] deadline, ms from now ('' without one)   ARGV[5] first history entry, without braces and time
-- ARGV[6] references to copy from (session id of the same shard, or '')
-- ARGV[7] what it waits for ('' while a step of it is open)   ARGV[8] '' | succeeded | failed | cancelled: it has ended
--   when it is made   ARGV[9] its output or error, JSON ('' for neither)
-- ARGV[10] history entry of that end, without braces and time
-- ARGV[11] the count of open sessions that it is one of: `<sessions or commands>:<API key>` ('' for none)
-- ARGV[12] how many there may be of them ('' for no limit)
-- ARGV[13] n, then n index names (`workflow:…`, `tag:…`, `key:…`)   then m and m × (field, value) of the session hash
--   then opened effects
-- ARGV last  bytes that its history may need until it ends
-- Returns {'created', when, 'parent' | ''}: it has ended, and a parent is to be told | {'exists', session id, SHA-256
--   of its body} | {'gone'}: the session to copy references from was deleted | {'full'}: there are as many as there may
--   be
local idempotency, bodySha, ttl, deadline, entry, copied = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local parked, outcome, result, last = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local counted, most = ARGV[11], tonumber(ARGV[12])
local status = parked == '' and 'queued' or 'running'
if idempotency ~= '' then
  local known = redis.call('HMGET', idempotency, 'session', 'body')
  if known[1] then return { 'exists', known[1], known[2] } end
end
if redis.call('EXISTS', S) == 1 then return { 'exists', sid, bodySha } end
if copied ~= '' and redis.call('EXISTS', B .. 'session:' .. copied) == 0 then return { 'gone' } end
if most and redis.call('ZCARD', B .. 'index:open:' .. counted) >= most then return { 'full' } end

local set = { 'status', status, 'desired', 'run', 'version', 1, 'createdAt', wall, 'inboxed', 0 }
redis.call('ZADD', B .. 'index:all', wall, sid)
redis.call('ZADD', B .. 'index:status:' .. status, wall, sid)
if counted ~= '' then
  redis.call('ZADD', B .. 'index:open:' .. counted, wall, sid)
  set[#set + 1] = 'counted'
  set[#set + 1] = counted
end
local i = 14
for _ = 1, tonumber(ARGV[13]) do
  redis.call('ZADD', B .. 'index:' .. ARGV[i], wall, sid)
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
set[#set + 1] = 'reserve'
set[#set + 1] = ARGV[i]
redis.call('INCRBY', B .. 'reserved', ARGV[i])
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
for _, sha in ipairs(copied ~= '' and redis.call('SMEMBERS', B .. 'references:' .. copied) or {}) do
  redis.call('SADD', B .. 'references:' .. sid, sha)
  redis.call('SADD', B .. 'named:' .. sha, sid)
end
if idempotency ~= '' then
  redis.call('HSET', idempotency, 'session', sid, 'body', bodySha)
  redis.call('EXPIRE', idempotency, ttl)
end
record(entry)
local told
if outcome ~= '' then
  local field = result ~= '' and (outcome == 'failed' and 'error' or 'output') or ''
  told = finish(status, outcome, field, result, last)
end
return { 'created', wall, told and 'parent' or '' }
