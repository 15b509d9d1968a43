import { defineErrors } from '../../errors.ts'

export const deviceError = defineErrors('device', {
  taken: { class: 'permanent', remedy: 'Another live worker owns this device; choose another device or stop that worker.' },
  lost: { class: 'transient', remedy: 'The device is gone; its steps move to another worker.' },
  unknown: { class: 'permanent', remedy: 'GET /v1/devices lists the devices that have a worker now.' },
  not_ready: { class: 'permanent', remedy: 'Its worker drains, is overloaded or hangs; submit again, or use another device.' },
  unavailable: { class: 'permanent', remedy: '`darkroom doctor` lists the devices of this machine, and why others are missing.' },
})
