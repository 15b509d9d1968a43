export { modelError } from '../../models/errors.ts'
