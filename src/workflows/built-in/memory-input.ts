/** The part of an image generation's form that speaks of its device's memory. */
import { MemoryProfile, type ImageRequest } from '../../domains/values.ts'

/** What a form of a workflow that draws may say of memory. */
export const memoryFields = {
  memoryProfile: MemoryProfile.optional().describe(
    'how much of the device’s memory it may take: highest-speed keeps all of the model there or is refused, balanced one network at a time, lowest-memory parts of a network, and decodes in tiles, which moves bits; default: auto, the fastest that fits',
  ),
}

type Memory = Pick<ImageRequest, 'memoryProfile'>

/** `auto` is what is meant where nothing is said: the same request, and the same file. */
export const completeMemory = ({ memoryProfile }: Memory): Memory => (memoryProfile === 'auto' ? {} : memoryOf({ memoryProfile }))

/** What a step is told of it. */
export const memoryOf = ({ memoryProfile }: Memory): Memory => (memoryProfile === undefined ? {} : { memoryProfile })
