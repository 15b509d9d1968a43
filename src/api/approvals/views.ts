/** Approvals as HTTP shows them. */
import { z } from 'zod'
import { Approval, ApprovalAnswer } from '../../engine/session.ts'
import { Time } from '../view.ts'

export const ApprovalBody = z
  .strictObject(Approval.shape)
  .meta({ id: 'GrantApproval', example: { signals: ['approve', 'discard'], expiresInS: 86_400 } })

export const GrantedView = z
  .strictObject({
    url: z.string().meta({ description: 'path that takes the answer; whoever has it may answer, so it is told this once' }),
    expiresAt: Time,
  })
  .meta({ id: 'Approval' })

export const AnswerBody = z.strictObject(ApprovalAnswer.shape).meta({ id: 'AnswerApproval', example: { signal: 'approve' } })

export const AnsweredView = z.strictObject({ session: z.string(), signal: z.string() }).meta({ id: 'ApprovalAnswer' })
