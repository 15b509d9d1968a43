import { defineErrors, type DarkroomError } from '../errors.ts'

export const webhookError = defineErrors('webhook', {
  unknown: { class: 'permanent', remedy: 'Use an id that `GET /v1/webhooks` lists.' },
  refused: {
    class: 'permanent',
    remedy: 'Use a host of DARKROOM_WEBHOOK_HOSTS whose address is public, or have the operator add its network to DARKROOM_WEBHOOK_NETS.',
  },
  too_many: { class: 'permanent', remedy: 'Remove webhooks that you no longer use.' },
})

export const unknownWebhook = (id: string): DarkroomError =>
  webhookError('unknown', `there is no webhook ${JSON.stringify(id.slice(0, 64))}`)
