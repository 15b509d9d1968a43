/**
 * Every Redis key, channel and queue name. Keys that one script touches share a hash tag: `{s<n>}` for a shard's
 * sessions, `{device:<id>}` for a device's lease, `{host:<id>}` for a host's models, and one tag for each BullMQ queue.
 * No script crosses tags.
 */
import { createHash, randomBytes } from 'node:crypto'

const base = (shard: number): string => `darkroom:{s${shard}}:`

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz'

/**
 * `<shard>-<10 characters of time><16 of chance>`, Crockford base 32 in lower case: no dot and no colon, as job ids
 * need it.
 */
export function newSessionId(shard: number, nowMs: number): string {
  let time = ''
  for (let rest = nowMs, i = 0; i < 10; i++, rest = Math.floor(rest / 32)) time = alphabet[rest % 32] + time
  const chance = Array.from(randomBytes(16), (byte) => alphabet[byte % 32]).join('')
  return `${shard}-${time}${chance}`
}

/** The id of the child session that the effect `stepKey` asks for: always the same, on a shard of its own. */
export function childSessionId(shards: number, stepKey: string): string {
  const digest = createHash('sha256').update(stepKey).digest()
  return `${digest.readUInt32BE(28) % shards}-${Array.from(digest.subarray(0, 26), (byte) => alphabet[byte % 32]).join('')}`
}

/** The id of the session that undoes what another has done: always the same, on that one's shard. */
export function undoSessionId(sessionId: string): string {
  const digest = createHash('sha256').update(`${sessionId}.undo`).digest()
  return `${shardOf(sessionId)}-${Array.from(digest.subarray(0, 26), (byte) => alphabet[byte % 32]).join('')}`
}

export const sessionIdPattern = /^\d{1,2}-[0-9a-hjkmnp-tv-z]{26}$/

/** Shard of a session, which is the first part of its id. */
export const shardOf = (sessionId: string): number => Number.parseInt(sessionId, 10)

/** Shard of an entry of a due list: a step key, in the outbox behind its kind. */
export const shardOfMember = (member: string): number => shardOf(member.replace(/^\w+:/, ''))

/** The shard an idempotency key always leads to; without one, any. */
export function chooseShard(shards: number, idempotencyKey: string | undefined): number {
  const bytes = idempotencyKey === undefined ? randomBytes(4) : createHash('sha256').update(idempotencyKey).digest()
  return bytes.readUInt32BE(0) % shards
}

/** A step key is `<sessionId>.<version>.<n>`; its suffix `<version>.<n>` names the effect inside its session. */
export function splitStepKey(key: string): { sessionId: string; suffix: string } {
  const dot = key.indexOf('.')
  return { sessionId: key.slice(0, dot), suffix: key.slice(dot + 1) }
}

/** A BullMQ job id is `<stepKey>.<dispatch>`. */
export function splitJobId(jobId: string): { stepKey: string; dispatch: number } {
  const dot = jobId.lastIndexOf('.')
  return { stepKey: jobId.slice(0, dot), dispatch: Number(jobId.slice(dot + 1)) }
}

/** The steps that a job names, as the job ids that each would have. */
export const stepsOfJob = ({ id = '', data }: { id?: string | undefined; data: { steps?: string[] } }): string[] => data.steps ?? [id]

/** The session whose events a channel tells of. */
export const sessionOfChannel = (channel: string): string => channel.slice(channel.lastIndexOf(':') + 1)

export const keys = {
  session: (id: string) => `${base(shardOf(id))}session:${id}`,
  step: (stepKey: string) => `${base(shardOf(stepKey))}step:${stepKey}`,
  history: (id: string) => `${base(shardOf(id))}history:${id}`,
  inbox: (id: string) => `${base(shardOf(id))}inbox:${id}`,
  /** What each item of a session has of its own, JSON, by its index; and of those that were opened how they are. */
  items: (id: string) => `${base(shardOf(id))}items:${id}`,
  itemStates: (id: string) => `${base(shardOf(id))}item-states:${id}`,
  /** Artifacts a session names: its images and those of its input, kept as long as it is. */
  references: (id: string) => `${base(shardOf(id))}references:${id}`,
  /** Artifacts only its steps need: tensors and checkpoints, dropped when it ends. */
  scratch: (id: string) => `${base(shardOf(id))}scratch:${id}`,
  /** Sessions of a shard that name an artifact. */
  named: (shard: number, sha256: string) => `${base(shard)}named:${sha256}`,
  /** Channel: an empty message is a new history entry, any other a progress frame. */
  events: (id: string) => `${base(shardOf(id))}events:${id}`,
  /** Pattern of the channels of all sessions. */
  everyEvents: () => 'darkroom:{s*}:events:*',
  /** How the picture looks that is drawn now; the latest alone, for a minute. */
  preview: (id: string) => `${base(shardOf(id))}preview:${id}`,
  idempotency: (shard: number, keyId: string | null, key: string) => `${base(shard)}idempotency:${keyId ?? ''}:${key}`,
  /** What a webhook is told of a session's end; kept longer than the session if need be. */
  delivery: (id: string) => `${base(shardOf(id))}delivery:${id}`,
  /** Deliveries of a webhook in a state: pending ones by when they are due, others by when they were tried last. */
  deliveries: (shard: number, state: string, webhook: string) => `${base(shard)}deliveries:${state}:${webhook}`,
  /** Webhooks with pending deliveries in a shard, by when the first of them is due. */
  dueWebhooks: (shard: number) => `${base(shard)}webhooks`,
  outbox: (shard: number) => `${base(shard)}outbox`,
  leases: (shard: number) => `${base(shard)}leases`,
  timers: (shard: number) => `${base(shard)}timers`,
  /** Lines of a shard that are not empty: the other keys of admission stand beside it (`redis/prelude.lua`). */
  lines: (shard: number) => `${base(shard)}lines`,
  line: (shard: number, name: string) => `${base(shard)}line:${name}`,
  admissionSlots: (shard: number) => `${base(shard)}slots`,
  /** Clocks (`redis/clock.lua`), one for each tag in which durations are reckoned. */
  clock: (shard: number) => `${base(shard)}clock`,
  workersClock: () => 'darkroom:{workers}:clock',
  storeClock: () => 'darkroom:{store}:clock',
  deviceClock: (deviceId: string) => `darkroom:{device:${deviceId}}:clock`,
  /** How many sessions were made, have ended and how, and how many steps were recovered. */
  totals: (shard: number) => `${base(shard)}totals`,
  /** What the sessions of an API key have used, by day and measure. */
  use: (shard: number, key: string) => `${base(shard)}use:${key}`,
  /** Bytes that the open sessions of a shard may still need. */
  reserved: (shard: number) => `${base(shard)}reserved`,
  /**
   * Scored by the time a session was made; `ended` by the time from which its retention counts, which is its end. Of
   * `open:<sessions or commands>:<API key>` the limits count the members.
   */
  index: (shard: number, kind: 'all' | 'ended' | 'status' | 'workflow' | 'tag' | 'key' | 'parent' | 'open', value = '') =>
    `${base(shard)}index:${kind}${value && `:${value}`}`,

  deviceLease: (deviceId: string) => `darkroom:{device:${deviceId}}:lease`,
  /** What attempts have reserved of it, and what they wait for, by attempt. */
  reservations: (deviceId: string) => `darkroom:{device:${deviceId}}:reservations`,
  /** What the workers of a host have promised of its RAM, by worker; and what they hold for an API key. */
  hostMemory: (host: string) => `darkroom:{workers}:promised:host:${host}`,
  keyMemory: (principal: string) => `darkroom:{workers}:promised:key:${principal}`,
  /** Analytics of its memory, as its worker publishes them. */
  deviceMemory: (deviceId: string) => `darkroom:{device:${deviceId}}:memory`,
  /** The last recorded state of each present device, by device id; and the newest events of all devices, by number. */
  devices: () => 'darkroom:{workers}:devices',
  deviceEvents: () => `${keys.devices()}:events`,
  /** The turn to look at the devices. */
  deviceWatch: () => 'darkroom:{workers}:watch',
  /** How a device was over the last day, and the turn to write that on. */
  deviceHistory: (id: string) => `darkroom:{workers}:history:${id}`,
  historyTurn: () => 'darkroom:{workers}:history-turn',
  /** Workers and the queues that they serve, scored by when that ends unless it is published again. */
  workers: () => 'darkroom:{workers}:alive',
  worker: (id: string) => `darkroom:{workers}:worker:${id}`,
  serving: () => 'darkroom:{workers}:serving',
  /** Sessions whose attempts a worker lost in a row. */
  losses: (workerId: string) => `darkroom:{workers}:losses:${workerId}`,
  /** What the keeper of each shelf says of it, by the shelf's id. */
  shelves: () => 'darkroom:{models}:shelves',
  /** How long the calls of a model's pictures took, by hardware class and shape. */
  runs: (bodyHash: string) => `darkroom:{models}:runs:${bodyHash}`,
  /** Entries of a shelf by path; `changes` is the version at which each path last changed. */
  shelfModels: (id: string) => `darkroom:{host:${id}}:models`,
  shelfChanges: (id: string) => `darkroom:{host:${id}}:changes`,
  /** Hashes of files by path, with the state they were in. */
  shelfHashes: (id: string) => `darkroom:{host:${id}}:hashes`,
  /** Paths of models whose hashes are asked for; and how far they are. */
  shelfWanted: (id: string) => `darkroom:{host:${id}}:wanted`,
  shelfHashing: (id: string) => `darkroom:{host:${id}}:hashing`,
  /** What people wrote about models, by body hash, and the number of the last change. */
  annotations: () => 'darkroom:{models}:annotations',
  annotationsVersion: () => `${keys.annotations()}:version`,
  /** Why models are quarantined, by body hash. */
  quarantined: () => 'darkroom:{models}:quarantined',
  /** Figures by `<body hash>:<exactness key>`, and when each was written. */
  benchmarks: () => 'darkroom:{models}:benchmarks',
  benchmarkTimes: () => `${keys.benchmarks()}:times`,
  /** Held by the process that keeps the shelf. */
  shelfKeeper: (id: string) => `darkroom:{host:${id}}:keeper`,
  /** API keys that have uploaded an artifact within the hour. */
  uploaders: (sha256: string) => `darkroom:{store}:uploaders:${sha256}`,
  /** The turn to collect artifacts. */
  collector: () => 'darkroom:{store}:collector',
  /** What an operator has paused of the queue, and since when. */
  paused: () => 'darkroom:{workers}:paused',
  /** Turns that it has had. */
  collectorTurns: () => 'darkroom:{store}:collector-turns',
  /** The turn to remove sessions that are no longer kept. */
  retention: () => 'darkroom:{store}:retention',
  storeId: () => 'darkroom:{store}:id',
  /** Written to see whether Redis takes writes. */
  probe: () => 'darkroom:{store}:probe',
  /** Never there. Removing it is a write that changes nothing. */
  nothing: () => 'darkroom:{store}:nothing',
  shards: () => 'darkroom:{store}:shards',
  /** SHA-256 of the content that stands behind each workflow of one's own, by `name@version`, from its first use on. */
  workflowContents: () => 'darkroom:{workflows}:contents',
  /** How often somebody has asked to read the folder of workflows again. */
  workflowsAsked: () => 'darkroom:{workflows}:asked',
  apiKeys: () => 'darkroom:{keys}:records',
  /** There once was a key: without one, the farm stays closed until an operator opens it. */
  closed: () => 'darkroom:{keys}:closed',
  /** What was changed of the farm and by whom, the newest first. */
  audit: () => 'darkroom:{keys}:audit',
  /** Leases of the streams or waits that an API key has open, by the time each ends. */
  slots: (kind: string, keyId: string) => `darkroom:{keys}:slots:${kind}:${keyId}`,
  /** In front of each key's count of requests. */
  requests: () => 'darkroom:{keys}:requests',
  /** How far the traces of a shard were told, and the turn to tell them. */
  traced: (shard: number) => `${base(shard)}traced`,
  traceTurn: () => 'darkroom:{store}:traces',
  /** Webhooks by id, with their secrets. */
  webhooks: () => 'darkroom:{webhooks}:records',
  /** Schedules by id, and those that fall due by when, by the wall clock. */
  schedules: () => 'darkroom:{schedules}:records',
  dueSchedules: () => `${keys.schedules()}:due`,
  /** Nobody keeps it, so it is the wall clock. */
  schedulesClock: () => 'darkroom:{schedules}:clock',
  /** Actions over many sessions by id, those under way by when they go on, and what is left of each: sessions. */
  bulk: () => 'darkroom:{bulk}:records',
  dueBulk: () => `${keys.bulk()}:due`,
  bulkLeft: (id: string) => `${keys.bulk()}:left:${id}`,
  /** Nobody keeps it, so it is the wall clock. */
  bulkClock: () => 'darkroom:{bulk}:clock',
  /**
   * Policies of content safety: the newest version of each, by name. Beside it stand their versions, which one of each
   * applies, which did before, and to whom.
   */
  policies: () => 'darkroom:{policies}:newest',
  policyVersions: () => `${keys.policies()}:versions`,
  activePolicies: () => `${keys.policies()}:active`,
  policiesBefore: (name: string) => `${keys.policies()}:before:${name}`,
  policyChanges: (name: string) => `${keys.policies()}:changes:${name}`,
  appliedPolicies: () => `${keys.policies()}:applied`,
  /** How postprocessing went on a day, as 2026-11-29. */
  pictureAnalytics: (day: string) => `darkroom:{analytics}:${day}`,
  /** A picture that a policy has blocked, for as long as operators may see it. */
  blocked: (sha256: string) => `darkroom:{store}:blocked:${sha256}`,
  /** Default device by API key; `local` is this machine's user without keys. */
  defaultDevices: () => 'darkroom:{keys}:devices',

  /** Channel: the id of a session whose lease holders should ask what is desired. */
  control: () => 'darkroom:control',
  /** Channel: a job was added to this queue. */
  wake: (queue: string) => `darkroom:wake:${queue}`,
  /** BullMQ prefix: each queue has a hash tag of its own. */
  queuePrefix: (queue: string) => `darkroom:{q.${queue}}`,
}

export const queues = {
  host: 'host',
  /** Host steps that need a model which not every worker has: for those with this shelf. */
  hostShelf: (shelf: string) => `host.${shelf}`,
  gpuClass: (exactnessKey: string) => `gpu.${exactnessKey}`,
  /** Likewise of a class. */
  gpuShelf: (exactnessKey: string, shelf: string) => `gpu.${exactnessKey}.${shelf}`,
  gpuDevice: (deviceId: string) => `gpu.${deviceId}`,
  /** Commands to the worker that owns the device. */
  control: (deviceId: string) => `control.${deviceId}`,
  isControl: (queue: string) => queue.startsWith('control.'),
  isGpu: (queue: string) => queue.startsWith('gpu.'),
  /** A device id holds dashes, an exactness key does not. */
  isDevice: (queue: string) => queue.startsWith('gpu.') && queue.includes('-'),
}
