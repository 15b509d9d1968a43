export { DarkroomClient, type ClientOptions, type ListFilter, type SubmitOptions } from './client.ts'
export { Problem, type ProblemDocument } from './problem.ts'
export type {
  Frame,
  Image,
  ImageRequest,
  Progress,
  Receipt,
  Session,
  SessionEvent,
  SessionPage,
  Status,
  Submission,
  Worker,
} from './types.ts'
