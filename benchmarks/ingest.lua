-- For wrk: sends each request of a file once, at a given rate or as fast as they are answered.
--
--     wrk --threads 1 --script ingest.lua URL -- FILE [REQUESTS_PER_SECOND]
--
-- The file holds whole HTTP requests, each behind a line with its length. A file that runs out
-- is reported: nothing is ever sent twice.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long sec; long nsec; } timespec_t;
  int clock_gettime(int clock, timespec_t *time);
]]
local MONOTONIC = 1
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  file = assert(io.open(args[1], "rb"))
  ran_out = false
  if args[2] then
    pace(tonumber(args[2]))
  end
end

function request()
  local length = file:read("*l")
  if not length then
    ran_out = true
    return wrk.format("GET", "/ran-out")
  end
  return file:read(tonumber(length))
end

-- Each request gets the next slot of one schedule; whichever connection is free waits for it.
function pace(rate)
  local time = ffi.new("timespec_t")
  local function now()
    ffi.C.clock_gettime(MONOTONIC, time)
    return tonumber(time.sec) * 1000 + tonumber(time.nsec) / 1e6
  end
  local slot
  function delay()
    slot = (slot or now()) + 1000 / rate
    return math.max(0, math.floor(slot - now()))
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"seconds": %.6f, "answered": %d, "refused": %d, "broken": %d, "ran_out": %s, "p50": %.3f, "p99": %.3f}\n',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    tostring(threads[1]:get("ran_out")),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
