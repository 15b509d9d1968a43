import { z } from 'zod'
import { brief, DeviceName } from '../command.ts'
import { operation, type DeviceTools } from '../operation.ts'
import { Count, Target } from '../values.ts'

/**
 * What is held of the device: by everybody, by the worker's own allocations with their arenas, and by its Python child.
 * Bytes.
 */
const HeldMemory = z.strictObject({
  used: Count.nullable(),
  allocations: Count,
  arenas: Count,
  python: Count.nullable(),
  models: z.array(z.string()),
})

/** Lets go of what can be had again: caches of the addon and of Python, and models that no session uses. */
export const optimize = operation({
  ...brief,
  /** `idleModels`: lets go of models that no session uses, too; they are loaded again when needed. */
  input: z.strictObject({ target: Target, idleModels: z.boolean() }),
  output: z.strictObject({ before: HeldMemory, after: HeldMemory, did: z.array(z.string()) }).meta({ id: 'DeviceOptimized' }),
  async run({ target, idleModels }, tools) {
    const device = tools.device(target)
    const before = await heldNow(device)
    await device.memory.trim(device.index ?? 0)
    const trimmed = await device.trimPython(idleModels ? before.models.length : 0)
    await device.publish()
    const after = await heldNow(device)
    const did = ['let go of pinned memory that copies keep']
    did.push(
      trimmed ? 'emptied the cache of Python’s allocator' : 'asked Python in vain: no child runs, or a step keeps it from it until it ends',
    )
    for (const model of trimmed?.models ?? []) did.push(`let go of model ${model}`)
    return { before, after, did }
  },
  command: {
    title: 'Optimize a device',
    description: 'Lets go of caches and of models that nobody uses; the figures before and after come back.',
    scope: 'operate',
    input: z.strictObject({
      device: DeviceName,
      idleModels: z.boolean().default(true).describe('let go of models that no session uses, too'),
    }),
    resolve: async ({ device, idleModels }, catalogue) => ({ target: await catalogue.device(device, 'input.device'), idleModels }),
    route: {
      method: 'post',
      path: '/devices/{id}/optimize',
      params: { id: 'device' },
      body: 'OptimizeDevice',
      isBodyRequired: false,
      answers: 'What it was and what it is',
    },
  },
})

async function heldNow(device: DeviceTools): Promise<z.infer<typeof HeldMemory>> {
  const { memory, index } = device
  const [{ used }, child] = await Promise.all([memory.figures(index ?? 0), device.python()])
  const { tracked, reserved, pinned } = memory.usage(index ?? 0)
  return {
    used,
    allocations: tracked + pinned,
    arenas: reserved - tracked,
    python: child?.reservedBytes ?? null,
    models: child?.models ?? [],
  }
}
