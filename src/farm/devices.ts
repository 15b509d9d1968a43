/** Devices by name, and the default device of a caller. */
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { translated, type Redis } from '../redis.ts'
import { DeviceWatch } from './device-events.ts'
import { readSamples, type DeviceSample } from './history.ts'
import { isHere, type WorkerRecord } from './record.ts'
import { apiError } from '../errors.ts'
import { deviceError } from '../domains/device/errors.ts'

/**
 * The ready worker of a device: by its id, or by `cuda:0` while that means one device only.
 * @param field the field that a refusal names
 * @throws DarkroomError `device.unknown`
 */
export function findDevice<Found extends WorkerRecord>(name: string, workers: readonly Found[], field: string): Found {
  const ready = workers.filter(isHere)
  const [found, ...others] = ready.filter(({ device: { id, kind, index } }) => id === name || `${kind}:${index}` === name)
  if (found && others.length === 0) return found
  const ids = (some: WorkerRecord[]): string =>
    some
      .map(({ device }) => device.id)
      .toSorted()
      .join(', ') || 'none'
  const why = found ? `${name} may mean any of ${ids([found, ...others])}` : `there is no device ${name} now; there are: ${ids(ready)}`
  throw deviceError('unknown', why, { field })
}

export type { MemoryAnalytics } from '../domains/memory/figures/report.ts'

/** Devices as the API sees them; everything is read from Redis. */
export class Devices {
  readonly watch: DeviceWatch
  readonly #redis: Redis
  readonly #workers: () => Promise<WorkerRecord[]>

  constructor(redis: Redis, workers: () => Promise<WorkerRecord[]>, log: Logger) {
    this.#redis = redis
    this.#workers = workers
    this.watch = new DeviceWatch(redis, log)
  }

  /** Id of the default device of an API key, or of this machine's user without keys; null without one. */
  default(keyId: string | null): Promise<string | null> {
    return translated(this.#redis.hget(keys.defaultDevices(), keyId ?? 'local'))
  }

  /** Sets it; null removes it. Returns its id. @throws DarkroomError `device.unknown` */
  async setDefault(keyId: string | null, name: string | null): Promise<string | null> {
    const id = name === null ? null : findDevice(name, await this.#workers(), 'device').device.id
    if (id === null) await translated(this.#redis.hdel(keys.defaultDevices(), keyId ?? 'local'))
    else await translated(this.#redis.hset(keys.defaultDevices(), keyId ?? 'local', id))
    return id
  }

  /**
   * The device of a new session: the one it names, else the caller's default, else null for any.
   * @throws DarkroomError `device.unknown` when it is not here now
   */
  async choose(name: string | undefined, keyId: string | null): Promise<string | null> {
    const wanted = name ?? (await this.default(keyId))
    if (wanted === null) return null
    const workers = await this.#workers()
    if (name !== undefined) return findDevice(name, workers, 'device').device.id
    if (workers.some((worker) => isHere(worker) && worker.device.id === wanted)) return wanted
    throw deviceError('unknown', `the default device ${wanted} has no ready worker now`, {
      field: 'device',
      remedy: 'Name another device, or change the default: `darkroom devices default`, PUT /v1/devices/default.',
    })
  }

  /**
   * The worker that a command is for: of the device that it names, else of the caller's default, else of the only
   * device there is.
   * @throws DarkroomError `device.unknown`; `api.invalid` when there are several devices and neither the caller nor a
   * default names one
   */
  async commanded(name: string | undefined, keyId: string | null, field: string): Promise<WorkerRecord> {
    const workers = await this.#workers()
    const wanted = name ?? (await this.default(keyId))
    if (wanted !== null) return findDevice(wanted, workers, field)
    const [only, ...others] = workers.filter(isHere)
    if (!only) throw deviceError('unknown', 'there is no device now', { field })
    if (others.length === 0) return only
    const ids = [only, ...others].map(({ device }) => device.id).join(', ')
    throw apiError('invalid', `there are several devices, and the caller has no default: name one of ${ids}`, { field })
  }

  /** How a device was over the last day, a sample a minute, oldest first. */
  history(deviceId: string): Promise<DeviceSample[]> {
    return readSamples(this.#redis, deviceId)
  }

  /** The analytics that the worker of a device published last of its memory, as JSON; undefined without any. */
  async analytics(deviceId: string): Promise<string | undefined> {
    return (await translated(this.#redis.get(keys.deviceMemory(deviceId)))) ?? undefined
  }
}
