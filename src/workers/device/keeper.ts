/**
 * Keeps what a worker holds of its device: opens its memory, samples it once a second, lets go of what has outlived its owner, and says how it
 * stands. The only writer of these figures; they end with the worker's epoch.
 */
import { freemem, totalmem } from 'node:os'
import { noVitals, type AllocationInfo, type AllocationRequest, type Device, type DeviceMemory } from '../../domains/device-memory.ts'
import type { Alert } from '../../domains/device/status.ts'
import { Analytics, ownerKind, type End } from '../../domains/memory/figures/analytics.ts'
import { LeakBook, type LeakReason } from '../../domains/memory/figures/leaks.ts'
import { view } from '../../domains/memory/allocation.ts'
import { calm, describe, evictableOf, makeRoom, nextRung, press, type Droppable, type Rung } from '../../domains/memory/figures/pressure.ts'
import type { LeakReport, MemoryAnalytics, PythonMemory, Ram } from '../../domains/memory/figures/report.ts'
import type { DeviceTools } from '../../domains/operation.ts'
import type { Target } from '../../domains/values.ts'
import type { DeviceReport } from '../../farm/record.ts'
import { DarkroomError, ensureError } from '../../errors.ts'
import { sessionIdPattern } from '../../keys.ts'
import type { Reservation } from '../../farm/ledger.ts'
import type { Logger } from '../../log.ts'
import type { AttemptPort } from '../../engine/attempt.ts'
import { nativeStatus, openDeviceMemory, type OpenOptions } from './native.ts'
import type { Ready, Vitals } from '../python/protocol.ts'
import type { PythonChild } from '../python/supervisor.ts'
import { deviceError } from '../../domains/device/errors.ts'

const sampleMs = 1000
/** Analytics are published after every so many samples. */
const analyticsEvery = 5
/** Most allocations that a report lists. */
const listed = 200
/** °C at which a device is hot, and at which it is not any more. */
const hot = { from: 90, below: 85 }
/** How long anybody waits for the Python child to let go of something; a step that runs comes first. */
const patienceMs = 5000
/** An alert of a leak stays this long after the last one. */
const leakAlertMs = 600_000
/** What a session leaves at its end goes at once; what is found later than this was leaked. */
const releaseGraceMs = 3000

export interface KeeperOptions extends Target {
  ready: Ready
  child: PythonChild
  /** The child's last heartbeat, while one runs. */
  vitals(): Vitals | undefined
  /** Families of models that are here. */
  families: string[]
  port: Pick<AttemptPort, 'endedOf' | 'keyOf'>
  log: Logger
  isBusy(): boolean
  /** Publishes the worker's record with the newest report. */
  tell(): Promise<void>
  /** Holds so many bytes of the device for what is about to take them. @throws DarkroomError `memory.reserved`, `memory.exhausted` */
  reserve(bytes: number): Promise<Reservation>
  /** The device is lost, and what was held of it: only a new process can use it again. */
  fail(reason: DarkroomError): void
  /** Publishes what was seen of the memory over time. */
  tellAnalytics(analytics: MemoryAnalytics): Promise<void>
}

export interface OpenedDevice {
  memory: DeviceMemory
  index: number | null
  device: Device
  /** Why it is not the device itself, or not through the addon. */
  reason: string | null
}

/** The worker's own device as the addon sees it, found by what Python calls it; system RAM where there is no such one. */
export async function openOwnDevice({ kind, uuid }: Ready['hardware'], native: OpenOptions = {}): Promise<OpenedDevice> {
  const missing = native.plain ? 'the native addon is left out' : nativeStatus().reason
  const onHost = async (reason: string | null): Promise<OpenedDevice> => {
    const memory = await openDeviceMemory('host', native)
    const [device] = memory.devices()
    if (!device) throw deviceError('unavailable', 'system RAM is no device of the native addon')
    return { memory, index: kind === 'cpu' ? 0 : null, device, reason: reason ?? missing }
  }
  if (kind === 'cpu') return onHost(null)
  const memory = await openDeviceMemory('auto', native)
  const devices = memory.devices()
  const index = uuid === null ? -1 : devices.findIndex((device) => bare(device.uuid) === bare(uuid) || bare(device.luid) === bare(uuid))
  const device = devices[index]
  if (device) return { memory, index, device, reason: null }
  await memory.close()
  const seen = devices.map(({ key }) => key).join(', ')
  return onHost(missing ?? `${uuid ?? 'a device without a UUID'} is none of the devices that the native addon sees: ${seen}`)
}

const bare = (id: string | null): string | null => id && id.toLowerCase().replace(/^gpu-/, '').replaceAll('-', '')

export class MemoryKeeper implements DeviceTools {
  readonly device: string
  readonly worker: string
  readonly epoch: string
  readonly memory: DeviceMemory
  readonly index: number | null
  readonly #options: KeeperOptions
  readonly #own: OpenedDevice
  readonly #alerts = new Map<Alert['code'], Alert>()
  readonly #leaks = new LeakBook()
  readonly #analytics = new Analytics(Date.now())
  readonly #pressure = { device: calm(Date.now()), ram: calm(Date.now()) }
  /** What could be dropped of each pool, by the newest figures. */
  readonly #modelBytes = new Map<string, number>()
  readonly #droppable: Record<Pool, Droppable> = { device: nothing, ram: nothing }
  readonly #climbedAt: Record<Pool, number | null> = { device: null, ram: null }
  #isClimbing = false
  #samples = 0
  #report: DeviceReport | undefined
  #timer: NodeJS.Timeout | undefined
  #sampling: Promise<DeviceReport> | undefined
  #isClosed = false

  constructor(own: OpenedDevice, options: KeeperOptions) {
    this.device = options.device
    this.worker = options.worker
    this.epoch = options.epoch
    this.memory = own.memory
    this.index = own.index
    this.#own = own
    this.#options = options
  }

  /** Takes the first figures, and new ones every second from then on. */
  async open(): Promise<void> {
    await this.#sample()
    const tick = (): void => {
      this.#tick()
        .catch((error: unknown) => {
          if (!this.#isClosed) this.#options.log.warn({ err: error }, 'the device could not be looked at')
        })
        .finally(() => {
          if (!this.#isClosed) this.#timer = setTimeout(tick, sampleMs)
        })
    }
    this.#timer = setTimeout(tick, sampleMs)
  }

  /** The newest figures. */
  get report(): DeviceReport {
    if (!this.#report) throw new Error('the keeper is not open')
    return this.#report
  }

  async #tick(): Promise<void> {
    this.#count(await this.memory.expire(), 'expired')
    await this.#releaseEnded()
    await this.#sample()
    // A rung may wait for a step that runs: nothing else waits for the rung.
    if (!this.#isClimbing) void this.#climb()
    if (this.#samples % analyticsEvery === 0) await this.#options.tellAnalytics(this.#analytics.summary())
  }

  // ---- owners ----

  /** A session may have ended: if it has, what is its goes. */
  async ask(sessionId: string): Promise<void> {
    if (!this.memory.list().some(({ owner }) => owner === sessionId)) return
    if ((await this.#options.port.endedOf([sessionId])).size > 0) this.#note(await this.memory.releaseOwner(sessionId), 'released')
  }

  /** A message of an end can be lost: Redis is asked about every owner there is. */
  async #releaseEnded(): Promise<void> {
    const owners = new Set(this.memory.list().flatMap(({ owner }) => (sessionIdPattern.test(owner) ? [owner] : [])))
    if (owners.size === 0) return
    const ends = await this.#options.port.endedOf([...owners])
    for (const [owner, endedMs] of ends) {
      const released = await this.memory.releaseOwner(owner)
      if (endedMs > releaseGraceMs) this.#count(released, 'orphaned')
      else this.#note(released, 'released')
    }
  }

  #note(gone: AllocationInfo[], how: End): void {
    for (const info of gone) this.#analytics.ended(info, how)
  }

  #count(reclaimed: AllocationInfo[], reason: LeakReason): void {
    this.#note(reclaimed, reason)
    for (const info of reclaimed) {
      const allocation = view(info, this)
      this.#leaks.reclaimed(allocation, reason, Date.now())
      const { id, owner, bytes } = allocation
      if (reason === 'orphaned') this.#options.log.warn({ allocation: id, owner, bytes }, 'an allocation had outlived its owner')
    }
  }

  async principal(owner: string): Promise<string> {
    return owner.startsWith('key:') ? owner : `key:${(await this.#options.port.keyOf(owner)) ?? 'local'}`
  }

  // ---- what operations do ----

  async allocate(request: Omit<AllocationRequest, 'device'>): Promise<AllocationInfo> {
    const { bytes, kind = 'device' } = request
    if (kind === 'device' && this.index === null) {
      const why = `the native addon does not reach ${this.device}, only system RAM: ${this.#own.reason}`
      throw deviceError('unavailable', why, { field: 'kind' })
    }
    try {
      await using _place = kind === 'device' ? await this.#options.reserve(bytes) : null
      await this.#makeRoom(kind === 'device' ? 'device' : 'ram', bytes)
      const made = await this.memory.allocate({ ...request, device: this.index ?? 0 })
      this.#analytics.allocated(made)
      return made
    } catch (error) {
      if (error instanceof DarkroomError && ['memory.exhausted', 'memory.reserved'].includes(error.code))
        this.#analytics.refused(bytes, error.code, Date.now())
      throw error
    }
  }

  async release(id: number): Promise<AllocationInfo> {
    const info = this.memory.inspect(id)
    await this.memory.release(id)
    this.#analytics.ended(info, 'released')
    return info
  }

  /** The rungs that a request needs, at once. @throws DarkroomError `memory.exhausted` */
  async #makeRoom(pool: Pool, bytes: number): Promise<void> {
    await this.#sample()
    for (const rung of makeRoom(pool === 'ram' ? 'system RAM' : this.device, this.#pressure[pool], this.#droppable[pool], bytes))
      await this.#step(pool, rung)
  }

  /** The next rung of each pool that is pressed. */
  async #climb(): Promise<void> {
    this.#isClimbing = true
    for (const pool of ['device', 'ram'] as const) {
      const rung = nextRung(this.#pressure[pool], this.#droppable[pool], this.#climbedAt[pool], Date.now())
      if (rung) await this.#step(pool, rung).catch((error: unknown) => this.#options.log.warn({ pool, err: error }, 'a rung was not done'))
    }
    this.#isClimbing = false
  }

  async #step(pool: Pool, rung: Rung): Promise<void> {
    this.#climbedAt[pool] = Date.now()
    if (rung.is !== 'refuse') await this.trimPython(rung.is === 'model' ? 1 : 0)
    const told = describe(rung)
    if (this.#pressure[pool].rung !== told) this.#options.log.warn({ pool, level: this.#pressure[pool].level }, `memory pressure: ${told}`)
    this.#pressure[pool] = { ...this.#pressure[pool], rung: told }
  }

  /** What can be reserved of the device: all but what is in use for good, and cannot be dropped. null when nobody knows. */
  get capacity(): number | null {
    const { total, used, evictable } = this.#pressure.device
    if (total === null || used === null) return null
    // Models in use are held by reservations.
    const busy = this.report.python?.models.reduce((sum, { bytes, isIdle }) => sum + (isIdle ? 0 : (bytes ?? 0)), 0) ?? 0
    return Math.max(0, total - Math.max(0, used - evictable - busy))
  }

  /** What a model takes on the device, known once it has been there; 0 before, when the driver decides. */
  bytesOf(model: string): number {
    return this.#modelBytes.get(model) ?? 0
  }

  async trimPython(idleModels: number): Promise<{ freedBytes: number | null; models: string[] } | null> {
    const { child, log } = this.#options
    if (!child.isReady) return null
    const trimming = child
      .start('memory.trim', { idleModels })
      .outcome.then((outcome) => (outcome.type === 'result' ? outcome.output : null))
    // It waits behind the step that runs, and is done after that anyway.
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<null>((resolve) => (timer = setTimeout(resolve, patienceMs, null)))
    const failed = (error: unknown): null => {
      log.warn({ err: error }, 'Python did not let go of its caches')
      return null
    }
    const trimmed = await Promise.race([trimming.catch(failed), late])
    clearTimeout(timer)
    return trimmed
  }

  async python(): Promise<{ reservedBytes: number | null; models: string[] } | null> {
    const vitals = this.#options.vitals()
    return vitals ? { reservedBytes: vitals.deviceBytes, models: vitals.models.map(({ id }) => id) } : null
  }

  async publish(): Promise<number> {
    const { sampledAt } = await this.#sample()
    await this.#options.tell()
    return sampledAt
  }

  // ---- figures ----

  /** One at a time; who asks meanwhile gets the one that runs. */
  #sample(): Promise<DeviceReport> {
    this.#sampling ??= this.#look().finally(() => (this.#sampling = undefined))
    return this.#sampling
  }

  async #look(): Promise<DeviceReport> {
    const { memory } = this
    const index = this.index ?? 0
    const { families, ready } = this.#options
    const [figures, vitals] = await this.#figures(index)
    const usage = memory.usage(index)
    const child = this.#options.vitals()
    const python: PythonMemory | null = child
      ? {
          allocatedBytes: child.allocatedBytes,
          reservedBytes: child.deviceBytes,
          models: child.models.map(({ id, bytes, isIdle }) => ({ id, bytes, isIdle })),
        }
      : null
    for (const { id, bytes } of child?.models ?? []) this.#modelBytes.set(id, bytes)
    const ram = ramNow(child?.rssBytes ?? 0)
    const now = Date.now()
    const { total, budget, used, usedIsOwn } = figures
    const droppable = droppableOf(python)
    this.#droppable.device = droppable
    this.#pressure.device = press(this.#pressure.device, { total: usedIsOwn ? (budget ?? total) : total, used }, droppable, now)
    this.#pressure.ram = press(this.#pressure.ram, ram, nothing, now)
    const live = memory.list()
    this.#samples++
    this.#analytics.sample({
      at: now,
      figures,
      usage,
      fraction: this.#pressure.device.fraction,
      evictable: evictableOf(droppable),
      idleModelBytes: evictableOf({ ...droppable, caches: 0 }),
      owners: {
        session: bytesOf(live.filter(({ owner }) => ownerKind(owner) === 'session')),
        key: bytesOf(live.filter(({ owner }) => ownerKind(owner) === 'key')),
      },
    })
    this.#leaks.look(live, Date.now())
    const leaks = this.#leaks.report(live, (info) => view(info, this), Date.now())
    this.#watch(vitals.temperature, usage.lost, leaks)
    const { capabilities, key, uuid, luid, software } = this.#own.device
    const held = live.toSorted((a, b) => a.ageMs - b.ageMs || b.id - a.id)
    const isDegraded = [...this.#alerts.keys()].some((code) => code !== 'native.missing')
    this.#report = {
      backend: memory.backend,
      implementation: memory.implementation,
      reason: this.#own.reason,
      key,
      uuid,
      luid,
      software,
      capabilities: {
        ...capabilities,
        computeCapability: capabilities.computeCapability ?? ready.hardware.capability,
        driver: capabilities.driver ?? ready.hardware.driver,
        dtypes: [ready.settings.dtype],
        attention: [ready.settings.attention],
        families,
      },
      vitals,
      state: isDegraded ? 'degraded' : this.#options.isBusy() ? 'busy' : 'online',
      alerts: [...this.#alerts.values()],
      sampledAt: Date.now(),
      figures,
      usage,
      ram,
      python,
      pressure: { device: { ...this.#pressure.device }, ram: { ...this.#pressure.ram } },
      allocations: held.slice(0, listed).map((info) => view(info, this)),
      allocationCount: held.length,
      leaks,
    }
    return this.#report
  }

  async #figures(index: number): Promise<[DeviceReport['figures'], DeviceReport['vitals']]> {
    // Figures of system RAM would be none of the device.
    if (this.index === null) return [{ ...noFigures, total: this.#options.ready.hardware.totalBytes, source: 'python' }, noVitals]
    try {
      const both = await Promise.all([this.memory.figures(index), this.memory.vitals(index)])
      this.#alert('device.errors', undefined)
      return both
    } catch (error) {
      const { code, message } = ensureError(error, 'memory.refused')
      this.#alert('device.errors', `its figures could not be read: ${code}, ${message}`)
      return [noFigures, noVitals]
    }
  }

  #watch(temperature: number | null, isLost: boolean, leaks: LeakReport): void {
    const wasHot = this.#alerts.has('device.hot')
    if (temperature !== null && temperature >= (wasHot ? hot.below : hot.from))
      this.#alert('device.hot', `${Math.round(temperature)} °C; it slows down from about ${hot.from} °C on`)
    else this.#alert('device.hot', undefined)
    if (isLost) this.#options.fail(deviceError('lost', `the driver has lost ${this.device}, and what was held of it`))
    this.#alert('device.lost', isLost ? 'the driver has lost the device; its worker has to be started again' : undefined)
    this.#alert('native.missing', this.index === null ? (this.#own.reason ?? 'the native addon does not reach the device') : undefined)
    const pressed = (['device', 'ram'] as const).filter((pool) => this.#pressure[pool].level === 'critical')
    this.#alert('memory.pressure', pressed.length > 0 ? `critical in ${pressed.join(' and ')}` : undefined)
    const leak = leaks.newest.find(({ reason }) => reason === 'orphaned')
    const isRecent = leak !== undefined && Date.now() - leak.foundAt < leakAlertMs
    this.#alert(
      'memory.leak',
      isRecent ? `${leaks.byReason.orphaned.count} allocations had outlived their owners and were reclaimed` : undefined,
    )
  }

  /** Raises or clears an alert; one that stands keeps its time. */
  #alert(code: Alert['code'], message: string | undefined): void {
    if (message === undefined) this.#alerts.delete(code)
    else this.#alerts.set(code, { code, message, since: this.#alerts.get(code)?.since ?? Date.now() })
  }

  /** Lets go of everything: the epoch ends, and with it what anybody held. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    await this.#sampling?.catch(() => undefined)
    const left = await this.memory.close()
    for (const info of left) {
      const { id, owner, bytes } = view(info, this)
      this.#options.log.warn({ allocation: id, owner, bytes }, 'an allocation was held until its worker ended')
    }
    const { created, released, live } = this.#report?.usage ?? { created: 0, released: 0, live: 0 }
    if (left.length > 0)
      this.#options.log.warn({ left: left.length, created, released, live }, 'the device memory was not empty at its end')
  }
}

const noFigures = { total: null, budget: null, used: null, usedIsOwn: false, source: 'none' }

type Pool = 'device' | 'ram'
const nothing: Droppable = { caches: 0, idleModels: [] }

/** What Python can let go of at once: what its allocator keeps beyond its tensors, and models that are idle and whose size it knows. */
function droppableOf(python: PythonMemory | null): Droppable {
  if (!python) return nothing
  const { allocatedBytes, reservedBytes, models } = python
  return {
    caches: allocatedBytes === null || reservedBytes === null ? 0 : Math.max(0, reservedBytes - allocatedBytes),
    idleModels: models.flatMap(({ id, bytes, isIdle }) => (isIdle && bytes !== null ? [{ id, bytes }] : [])),
  }
}

const bytesOf = (some: AllocationInfo[]): number => some.reduce((sum, { bytes }) => sum + bytes, 0)

function ramNow(childRss: number): Ram {
  const allowed = process.constrainedMemory() ?? 0
  const isConstrained = allowed > 0 && allowed < totalmem()
  const total = isConstrained ? allowed : totalmem()
  const available = Math.min(total, isConstrained ? process.availableMemory() : freemem())
  return { total, available, used: total - available, rss: process.memoryUsage.rss() + childRss, source: isConstrained ? 'cgroup' : 'node' }
}
