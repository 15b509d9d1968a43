/** `darkroom devices`: list devices, show their state, choose one. */
import type { Device, DeviceEvent, DeviceStatus } from '../client/index.ts'
import { gib, size } from './bars.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { fields, inline, say, sayJson, table, whisper } from './terminal.ts'

interface Output extends ConnectionOptions {
  json?: boolean
}

const orUnknown = (value: number | null, unit: string): string => (value === null ? 'unknown' : `${Math.round(value)} ${unit}`)

export async function list(options: Output): Promise<void> {
  const devices = await (await connectApi(options)).devices()
  if (options.json) return sayJson(devices)
  if (devices.length === 0) return say('no devices: no worker is running')
  const rows = devices.map(({ id, name, state, status, usedBytes, totalBytes, isDefault, model }) => [
    id,
    name,
    status === 'ready' ? state : `${state}, worker ${status}`,
    totalBytes === null
      ? 'unknown'
      : `${usedBytes === null ? 'unknown' : (usedBytes / 2 ** 30).toFixed(1)} of ${(totalBytes / 2 ** 30).toFixed(1)} GiB`,
    `${isDefault ? '(default) ' : ''}${model}`,
  ])
  say(table(['DEVICE', 'NAME', 'STATE', 'MEMORY', ''], rows))
  for (const { id, alerts } of devices) for (const { code, message } of alerts) whisper(inline(`${id}: ${message} (${code})`))
}

export async function show(id: string, options: Output): Promise<void> {
  const client = await connectApi(options)
  const [device, status] = await Promise.all([client.device(id), client.deviceStatus(id)])
  if (options.json) return sayJson({ ...device, ...status })
  say(describe(device, status))
}

function describe(device: Device, { vitals, running }: DeviceStatus): string {
  const { computeCapability, featureLevel, driver, pci, unified, dtypes, attention, drawing, families, limits, measured } =
    device.capabilities
  const power = vitals.power === null ? 'unknown' : `${Math.round(vitals.power)} W of ${orUnknown(vitals.powerLimit, 'W')}`
  const lines: [string, string | null][] = [
    ['device', device.id],
    ['name', `${device.name}, ${device.model}${device.software && device.backend !== 'host' ? ', played by software' : ''}`],
    ['state', `${device.state}, worker ${device.worker} ${device.status}`],
    ...device.alerts.map(({ code, message }): [string, string] => ['alert', `${message} (${code})`]),
    ['default', device.isDefault ? 'yes' : null],
    ['memory', `${gib(device.usedBytes)} of ${gib(device.totalBytes)} used`],
    ['held through', `${device.backend}, ${device.implementation === 'addon' ? 'native addon' : 'without the native addon'}`],
    ['because', device.reason],
    ['utilization', orUnknown(vitals.utilization, '%')],
    ['temperature', orUnknown(vitals.temperature, '°C')],
    ['power', power],
    ['clocks', `${orUnknown(vitals.clock, 'MHz')}, memory ${orUnknown(vitals.memoryClock, 'MHz')}`],
    ['runs', running.map(({ step, session }) => (session === null ? step : `${step} of ${session}`)).join('; ') || 'nothing'],
    ['draws', families.join(', ') || 'nothing: there is no model'],
    ...drawing.map(({ family, dtype, graphs }): [string, string] => [family, `${dtype}${graphs ? ', by CUDA graphs' : ''}`]),
    ...measured.map(({ model, width, height, callsPerS }): [string, string] => [
      'has drawn',
      `${model}, ${width} × ${height}: ${callsPerS} calls a second`,
    ]),
    ['at most', `${limits.cells} latent cells a picture, ${limits.cellSteps} cells · steps`],
    ['computes in', `${dtypes.join(', ')}; attention: ${attention.join(', ')}`],
    ['compute capability', computeCapability],
    ['feature level', featureLevel],
    ['driver', driver],
    ['address', pci],
    ['memory is', unified === null ? null : unified ? 'shared with the host' : 'its own'],
    ['uuid', device.uuid],
    ['luid', device.luid],
    ['exactness', device.exactnessKey],
    ['measured', `${device.ageS.toFixed(1)} s ago`],
  ]
  return fields(lines, 20)
}

export async function events(options: Output & { device?: string; limit?: number }): Promise<void> {
  const { json, url, ...filter } = options
  const { events: found } = await (await connectApi(url === undefined ? {} : { url })).deviceEvents(filter)
  if (json) return sayJson(found)
  if (found.length === 0) return say('nothing has happened')
  const told = ({ type, alert, note }: DeviceEvent): string =>
    alert
      ? `${type.slice('alert.'.length)}: ${alert.message || alert.code} (${alert.code})`
      : `${type.slice('device.'.length)}${note ? `: ${note}` : ''}`
  say(
    table(
      ['WHEN', 'DEVICE', ''],
      found.map((event) => [event.at, event.device, told(event)]),
    ),
  )
}

export async function optimize(id: string, { keepModels, ...options }: Output & { keepModels?: boolean }): Promise<void> {
  const { before, after, did } = await (await connectApi(options)).run('device-optimize', { device: id, idleModels: !keepModels })
  if (options.json) return sayJson({ before, after, did })
  for (const each of did) say(inline(each))
  const rows = (['used', 'allocations', 'arenas', 'python'] as const).map((name) => [name, size(before[name]), size(after[name])])
  const models = ['models', before.models.join(', ') || 'none', after.models.join(', ') || 'none']
  say(table(['', 'BEFORE', 'AFTER'], [...rows, models]))
}

export async function refresh(id: string, options: Output): Promise<void> {
  const output = await (await connectApi(options)).run('device-refresh', { device: id })
  const sampledAt = new Date(output.sampledAt).toISOString()
  if (options.json) sayJson({ sampledAt })
  else say(`measured at ${sampledAt}`)
}

/** Shows the default device, or changes it: `any` takes it away. */
export async function choose(id: string | undefined, options: Output): Promise<void> {
  const client = await connectApi(options)
  const chosen = id === undefined ? await client.defaultDevice() : await client.setDefaultDevice(id === 'any' ? null : id)
  if (options.json) return sayJson(chosen)
  const { device, isHere } = chosen
  say(device === null ? 'any device' : isHere ? device : `${device}, which has no ready worker now`)
}
