/** Schedules: what is submitted again and again. */
import { signal } from './signals.ts'
import type { Schedule, Workflow } from '../client/types.ts'
import { attempt, get, may, request } from './api.ts'
import { form as written } from './form.ts'
import { Json, Labelled, Panel, Select } from './parts.tsx'
import { Room, Sure, useLook } from './room.tsx'
import { linkTo } from './route.ts'
import { capital } from './words.ts'

const all = signal<readonly Schedule[]>([])
const workflows = signal<readonly string[]>([])
const kind = signal('cron')

const look = async (): Promise<void> => void (all.value = (await get<{ schedules: Schedule[] }>('/schedules')).schedules)

const ruleOf = ({ cron, timezone, everyS }: Schedule): string => (cron === null ? `every ${everyS} s` : `${cron} ${timezone}`)
const dayAndTime = (iso: string): string => new Date(iso).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' })

async function add(said: FormData): Promise<boolean> {
  const { rule, when = '', timezone, workflow, input = '', ...rest } = Object.fromEntries(said) as Record<string, string>
  const done = await attempt(async () => {
    const session = { workflow, input: JSON.parse(input) as unknown }
    const times = rule === 'cron' ? { cron: when, timezone } : { everyS: Number(when) }
    return request('POST', '/schedules', { ...rest, session, ...times })
  })
  if (done) await attempt(look)
  return done !== undefined
}

export function Schedules() {
  useLook(look, 5000)
  useLook(async () => {
    const told = await get<{ workflows: Workflow[] }>('/workflows')
    workflows.value = told.workflows.map(({ name }) => name).toSorted()
  }, 60_000)
  return (
    <Room name="schedules" title="Schedules">
      <ul class="rows">
        {all.value.map((schedule) => (
          <Row key={schedule.id} schedule={schedule} />
        ))}
      </ul>
      {all.value.length === 0 && <p class="hint">There is none.</p>}
      {may('submit') && <Fields />}
    </Room>
  )
}

function Row({ schedule }: { schedule: Schedule }) {
  const { id, name, session, isPaused, next, occurrences } = schedule
  const [latest] = occurrences
  const path = `/schedules/${id}`
  const turn = isPaused ? 'resume' : 'pause'
  return (
    <li>
      <details>
        <summary>
          <span class="name">{name}</span>
          <span class="tag">{isPaused ? 'paused' : ruleOf(schedule)}</span>
          <span class="hint">
            {session.workflow}
            {next[0] !== undefined && ` · next ${dayAndTime(next[0])}`}
            {latest && ` · last ${latest.is}`}
          </span>
        </summary>
        <ol class="deliveries">
          {occurrences.map(({ instant, is, session: made, said }) => (
            <li key={instant}>
              <time dateTime={instant}>{dayAndTime(instant)}</time> {made === null ? is : <a href={linkTo('session', made)}>{is}</a>}{' '}
              <small>{said}</small>
            </li>
          ))}
        </ol>
        <Json of={session.input} />
        {may('control') && (
          <div class="verbs">
            <button onClick={() => void attempt(() => request('POST', `${path}/${turn}`).then(look))}>{capital(turn)}</button>
            <Sure verb="Remove" of={name} act={() => void attempt(() => request('DELETE', path).then(look))} />
          </div>
        )}
      </details>
    </li>
  )
}

function Fields() {
  const isCron = kind.value === 'cron'
  return (
    <Panel title="A new schedule" act={add}>
      <div class="row">
        <Labelled label="Name" name="name" required maxLength={64} placeholder="nightly" />
        <Labelled label="Rule">
          <Select
            name="rule"
            of={{ cron: 'by a cron pattern', every: 'every so many seconds' }}
            value={kind.value}
            choose={(rule) => (kind.value = rule)}
          />
        </Labelled>
        <Labelled
          label={isCron ? 'Minute hour day month weekday' : 'Seconds'}
          name="when"
          required
          placeholder={isCron ? '30 2 * * 1-5' : '3600'}
          inputMode={isCron ? undefined : 'numeric'}
        />
      </div>
      <div class="row">
        {isCron && (
          <Labelled label="Time zone" name="timezone" required defaultValue={new Intl.DateTimeFormat().resolvedOptions().timeZone} />
        )}
        <Labelled label="While the last one goes on">
          <Select name="overlap" of={['skip', 'queue', 'replace', 'allow']} />
        </Labelled>
        <Labelled label="Workflow">
          <Select name="workflow" of={workflows.value} defaultValue="image-generation" />
        </Labelled>
      </div>
      <Labelled label="Input, as JSON; to begin with it is what stands in the form of Draw">
        <textarea name="input" rows={5} required spellcheck={false} defaultValue={JSON.stringify(written.value, null, 2)} />
      </Labelled>
    </Panel>
  )
}
