/** Finds and opens the memory of the worker's own device. */
import type { Device, DeviceMemory } from '../../domains/device-memory.ts'
import { deviceError } from '../../domains/device/errors.ts'
import type { Ready } from '../python/protocol.ts'
import { nativeStatus, openDeviceMemory, type OpenOptions } from './native.ts'

export interface OwnDevice {
  memory: DeviceMemory
  /**
   * Of the device in `memory.devices()`; null when `memory` is system RAM because the addon does not reach the device.
   */
  index: number | null
  device: Device
  /** Why `memory` is not the device's, or not the addon's; null when it is. */
  reason: string | null
}

/**
 * Finds the device in the native addon by the UUID that Python gives it, never by index. System RAM for a worker on a
 * CPU, and where the addon does not reach the device.
 */
export async function openOwnDevice({ kind, uuid }: Ready['hardware'], native: OpenOptions = {}): Promise<OwnDevice> {
  const missing = native.plain ? 'the native addon is left out' : nativeStatus().reason
  const onHost = async (reason: string | null): Promise<OwnDevice> => {
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

/** A UUID as both sides can compare it: in lower case, without NVIDIA's prefix and dashes. */
const bare = (id: string | null): string | null => id && id.toLowerCase().replace(/^gpu-/, '').replaceAll('-', '')
