import type { DeviceTools, Tools } from '../operation.ts'
import type { Held, OptimizeInput, OptimizeOutput, RefreshInput, RefreshOutput } from './schema.ts'

/** Lets go of what can be had again: caches of the addon and of Python, and models that nobody uses. */
export async function optimize({ target, idleModels }: OptimizeInput, tools: Tools): Promise<OptimizeOutput> {
  const device = tools.device(target)
  const before = await held(device)
  await device.memory.trim(device.index ?? 0)
  const trimmed = await device.trimPython(idleModels ? before.models.length : 0)
  await device.publish()
  const after = await held(device)
  const did = ['let go of pinned memory that copies keep']
  did.push(
    trimmed ? 'emptied the cache of Python’s allocator' : 'asked Python in vain: no child runs, or a step keeps it from it until it ends',
  )
  for (const model of trimmed?.models ?? []) did.push(`let go of model ${model}`)
  return { before, after, did }
}

/** Publishes the device's figures now. */
export async function refresh({ target }: RefreshInput, tools: Tools): Promise<RefreshOutput> {
  return { sampledAt: await tools.device(target).publish() }
}

async function held(device: DeviceTools): Promise<Held> {
  const { memory, index } = device
  const [{ used }, child] = await Promise.all([memory.figures(index ?? 0), device.python()])
  const { tracked, reserved, pinned } = memory.usage(index ?? 0)
  const arenas = reserved - tracked
  return { used, allocations: tracked + pinned, arenas, python: child?.reservedBytes ?? null, models: child?.models ?? [] }
}
