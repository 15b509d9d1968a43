/**
 * Commands to a worker over HTTP: each is a session of a one-step workflow. `202` with the session; with `Prefer: wait=SECONDS` its result
 * (`200`), or what it failed of as a problem, in the same call.
 */
import type { Context } from 'hono'
import { z } from 'zod'
import { sha256Of } from '../artifacts/store.ts'
import { DarkroomError, sessionError } from '../errors.ts'
import { ended } from '../engine/session.ts'
import type { ApiParts, AppEnv } from './context.ts'
import { json, problems } from './route.ts'
import { presentSession, SessionView } from './sessions/views.ts'
import { afterWait, IdempotencyKey, Prefer } from './wait.ts'

/** Commands go before pictures: whoever asks waits for the answer. */
const priority = 9

export const commandHeaders = z.object({ 'idempotency-key': IdempotencyKey, prefer: Prefer })

/** Responses of a route that commands. */
export const commandResponses = <S extends z.ZodType>(description: string, schema: S) => ({
  200: json(`${description}; only with \`Prefer: wait\``, schema),
  202: json('Accepted: the session whose output it will be', SessionView),
  ...problems(404, 409),
})

/**
 * Runs the workflow for the caller. Undefined while it runs on: then the answer is `202` with the session.
 * @param names what fields of the input are called in the request; null for one that came in its path: what is unknown there is 404
 * @throws DarkroomError why it was refused or has failed, with the fields as the caller sent them
 */
export async function command(
  parts: Pick<ApiParts, 'engine' | 'closing'>,
  c: Context<AppEnv>,
  workflow: string,
  input: Record<string, unknown>,
  names: Readonly<Record<string, string | null>> = {},
): Promise<{ output: Record<string, unknown> } | { session: z.infer<typeof SessionView> }> {
  const { keyId, scopes } = c.get('caller')
  const idempotencyKey = c.req.header('idempotency-key')
  try {
    const { session } = await parts.engine.start({
      workflow,
      input,
      priority,
      tags: [],
      keyId,
      mayOperate: scopes.has('operate'),
      ...(idempotencyKey !== undefined && {
        idempotencyKey,
        bodySha256: sha256Of(Buffer.from(`${c.req.method} ${c.req.path}\n${await c.req.text()}`)),
      }),
    })
    const { session: latest, hasWaited } = await afterWait(parts, c, session)
    if (!hasWaited || !ended.has(latest.status)) return { session: presentSession(latest) }
    if (latest.status === 'succeeded') return { output: latest.output ?? {} }
    throw latest.error ? DarkroomError.fromWire(latest.error) : sessionError('ended', `session ${latest.id} was cancelled meanwhile`)
  } catch (error) {
    throw error instanceof DarkroomError ? asSent(error, names) : error
  }
}

/** The same refusal, its fields named as in the request: `input.device` is `device` there, and what came in the path is no field. */
function asSent(error: DarkroomError, names: Readonly<Record<string, string | null>>): DarkroomError {
  const bare = (name: string): string => name.replace(/^input\./, '')
  const own = bare(error.field ?? '')
  const field = own in names ? names[own] : own
  const { problems: listed } = (error.details ?? {}) as { problems?: { field: string; message: string }[] }
  const details = listed
    ? { ...error.details, problems: listed.map((problem) => ({ ...problem, field: bare(problem.field) })) }
    : error.details
  const { code, message, remedy } = error
  return new DarkroomError(code, message.replaceAll('input.', ''), {
    remedy,
    cause: error,
    ...(field && { field }),
    ...(details && { details }),
  })
}
