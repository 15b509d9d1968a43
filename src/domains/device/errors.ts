import { defineErrors } from '../../errors.ts'

export const deviceError = defineErrors('device', {
  taken: { class: 'permanent', remedy: 'Another live worker owns this device; choose another device or stop that worker.' },
  lost: { class: 'transient', remedy: 'The device is gone; its steps move to another worker.' },
  unknown: { class: 'permanent', remedy: 'GET /v1/devices lists the devices that have a worker now.' },
  not_ready: { class: 'permanent', remedy: 'Its worker is draining, overloaded or hangs; ask again, or use another device.' },
  unavailable: { class: 'permanent', remedy: '`darkroom doctor` says which devices are here, and why others are not.' },
})
