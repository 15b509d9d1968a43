-- readLines: all that decides who of a shard is let in next. Changes nothing.
-- KEYS[1] the set of its lines
-- ARGV[1] how many of each line are read, from its head (0: all)
-- Returns {'ok', now, n, n × (field, value) of `turns`, s, s × (step, its slot and the model of its session), then for
--   each line: its name, its length, m, m × (step, order)}
local lines, heads = KEYS[1], tonumber(ARGV[1])
local B = string.match(lines, '^(.-:)lines$')
local now = farmTime(B)
local reply = { 'ok', now }
local function add(list, width)
  reply[#reply + 1] = #list / width
  for _, value in ipairs(list) do reply[#reply + 1] = value end
end
add(redis.call('HGETALL', B .. 'turns'), 2)
local slots = redis.call('HGETALL', B .. 'slots')
for i = 1, #slots, 2 do
  local model = redis.call('HGET', B .. 'session:' .. string.match(slots[i], '^[^.]+'), 'model')
  slots[i + 1] = slots[i + 1] .. ' ' .. (model or '-')
end
add(slots, 2)
local names = redis.call('SMEMBERS', lines)
table.sort(names)
for _, line in ipairs(names) do
  reply[#reply + 1] = line
  reply[#reply + 1] = redis.call('ZCARD', B .. 'line:' .. line)
  add(redis.call('ZRANGE', B .. 'line:' .. line, 0, heads - 1, 'WITHSCORES'), 2)
end
return reply
