/** Entries of the audit log as HTTP shows them. */
import { z } from 'zod'
import type { AuditEntry } from '../../audit.ts'
import { iso, Time } from '../view.ts'

export const AuditView = z
  .strictObject({
    at: Time,
    keyId: z.string().nullable().meta({ description: 'null: the user of a machine without keys, or of the command line' }),
    action: z.string().meta({ example: 'POST /v1/bulk' }),
    requestId: z.string().nullable(),
  })
  .meta({ id: 'AuditEntry' })

export const presentEntry = ({ at, ...entry }: AuditEntry): z.infer<typeof AuditView> => ({ at: iso(at), ...entry })
