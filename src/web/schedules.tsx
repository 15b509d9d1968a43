/** Schedules: what is submitted again and again. */
import { signal } from '@preact/signals'
import type { Schedule, Workflow } from '../client/types.ts'
import { attempt, get, may, request } from './api.ts'
import { form as written } from './form.ts'
import { Room, Sure, useLook } from './room.tsx'
import { linkTo } from './route.ts'

const all = signal<readonly Schedule[]>([])
const workflows = signal<readonly string[]>([])

const look = async (): Promise<void> => void (all.value = (await get<{ schedules: Schedule[] }>('/schedules')).schedules)

const ruleOf = ({ cron, timezone, everyS }: Schedule): string => (cron === null ? `every ${everyS} s` : `${cron} ${timezone}`)
const dayAndTime = (iso: string): string => new Date(iso).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' })

async function add(form: HTMLFormElement): Promise<void> {
  const data = Object.fromEntries(new FormData(form)) as Record<string, string>
  const { name, rule, when = '', timezone, overlap, workflow, input = '' } = data
  const isCron = rule === 'cron'
  const done = await attempt(async () => {
    const session = { workflow, input: JSON.parse(input) as unknown }
    return request('POST', '/schedules', { name, overlap, session, ...(isCron ? { cron: when, timezone } : { everyS: Number(when) }) })
  })
  if (!done) return
  form.reset()
  await attempt(look)
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
      {may('submit') && <Form />}
    </Room>
  )
}

function Row({ schedule }: { schedule: Schedule }) {
  const { id, name, session, isPaused, next, occurrences } = schedule
  const [latest] = occurrences
  const change = (verb: string) => () => void attempt(() => request('POST', `/schedules/${id}/${verb}`).then(look))
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
        <pre>{JSON.stringify(session.input, null, 2)}</pre>
        {may('control') && (
          <div class="verbs">
            <button type="button" onClick={change(isPaused ? 'resume' : 'pause')}>
              {isPaused ? 'Resume' : 'Pause'}
            </button>
            <Sure verb="Remove" of={name} act={() => void attempt(() => request('DELETE', `/schedules/${id}`).then(look))} />
          </div>
        )}
      </details>
    </li>
  )
}

function Form() {
  const isCron = kind.value === 'cron'
  return (
    <form
      class="panel"
      aria-labelledby="schedule-form"
      onSubmit={(event) => {
        event.preventDefault()
        void add(event.currentTarget)
      }}
    >
      <h2 id="schedule-form">A new schedule</h2>
      <div class="row">
        <label class="field">
          <span>Name</span>
          <input name="name" required maxLength={64} placeholder="nightly" />
        </label>
        <label class="field">
          <span>Rule</span>
          <select name="rule" value={kind.value} onChange={({ currentTarget: { value } }) => (kind.value = value)}>
            <option value="cron">by a cron pattern</option>
            <option value="every">every so many seconds</option>
          </select>
        </label>
        <label class="field">
          <span>{isCron ? 'Minute hour day month weekday' : 'Seconds'}</span>
          <input name="when" required placeholder={isCron ? '30 2 * * 1-5' : '3600'} inputMode={isCron ? undefined : 'numeric'} />
        </label>
      </div>
      <div class="row">
        {isCron && (
          <label class="field">
            <span>Time zone</span>
            <input name="timezone" required defaultValue={new Intl.DateTimeFormat().resolvedOptions().timeZone} />
          </label>
        )}
        <label class="field">
          <span>While the last one goes on</span>
          <select name="overlap">
            {['skip', 'queue', 'replace', 'allow'].map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>Workflow</span>
          <select name="workflow" defaultValue="image-generation">
            {workflows.value.map((each) => (
              <option key={each} selected={each === 'image-generation'}>
                {each}
              </option>
            ))}
          </select>
        </label>
      </div>
      <label class="field">
        <span>Input, as JSON; to begin with it is what stands in the form of Draw</span>
        <textarea name="input" rows={5} required spellcheck={false} defaultValue={JSON.stringify(written.value, null, 2)} />
      </label>
      <button type="submit" class="main">
        Make it
      </button>
    </form>
  )
}

const kind = signal('cron')
