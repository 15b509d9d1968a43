import { defineErrors } from '../../errors.ts'

export const errors = defineErrors({
  'memory.invalid': { class: 'permanent', remedy: 'Correct the field named above; sizes and offsets are whole numbers of bytes.' },
  'memory.out_of_range': { class: 'permanent', remedy: 'Keep offset and size inside the allocation, and two ranges in one apart.' },
  'memory.unknown': { class: 'permanent', remedy: 'Allocate again; allocations go with their release, their owner or their time.' },
  'memory.elsewhere': { class: 'permanent', remedy: 'Use a transfer: a copy stays within one device.' },
  'memory.cancelled': { class: 'cancelled', remedy: 'Copy again if it was not meant to end; the target holds old and new bytes.' },
  'memory.corrupt': { class: 'transient', remedy: 'Copy again; if it comes back, the device or the RAM of this machine is broken.' },
  'memory.closed': { class: 'transient', remedy: 'The worker is ending; ask again when it is back.' },
  'memory.refused': { class: 'transient', remedy: 'The driver refused, for the reason above; look at its log.' },
})
