-- How many requests each stack has had, and how long they took.
--
-- Each worker counts for itself and adds that up once a second: a request costs it no shared memory.
--   quarry_tallies  <stack>|<class>     "<requests>" of a status 1xx to 5xx, and with |ms the milliseconds they took

local floor = math.floor

local M = {}

local all = ngx.shared.quarry_tallies
-- How often they are added up, in seconds.
local PAUSE = 1

-- By stack, by class: requests at 1 to 5, and the seconds they took at 6 to 10.
local own = {}
local dirty = false

function M.count(stack, status, seconds)
    local class = floor(status / 100)
    if class < 1 or class > 5 then
        return
    end
    local counts = own[stack]
    if not counts then
        counts = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
        own[stack] = counts
    end
    counts[class] = counts[class] + 1
    counts[class + 5] = counts[class + 5] + seconds
    dirty = true
end

local function add_up()
    if not dirty then
        return
    end
    local counted = own
    own, dirty = {}, false
    for stack, counts in pairs(counted) do
        for class = 1, 5 do
            if counts[class] > 0 then
                local key = stack .. "|" .. class
                all:incr(key, counts[class], 0)
                all:incr(key .. "|ms", floor(counts[class + 5] * 1000 + 0.5), 0)
            end
        end
    end
end

-- A worker that ends runs its timers once more, and so loses nothing.
function M.start_worker()
    own, dirty = {}, false
    ngx.timer.every(PAUSE, add_up)
end

-- A line each: stack, class, requests, milliseconds.
function M.text()
    local lines = {}
    for _, key in ipairs(all:get_keys(0)) do
        local stack, class = key:match("^([^|]+)|(%d)$")
        if stack then
            lines[#lines + 1] = stack .. " " .. class .. " " .. all:get(key) .. " " .. (all:get(key .. "|ms") or 0)
        end
    end
    table.sort(lines)
    return table.concat(lines, "\n")
end

return M
