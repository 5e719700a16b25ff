-- Reads JSON. Only what HQ writes has to be understood, all of it is checked; raises a message on anything else.

local M = {}

local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local value

local function fail(at)
    error("not JSON at character " .. at, 0)
end

local function skip(text, at)
    return text:find("[^ \t\r\n]", at) or #text + 1
end

local function string_at(text, at)
    local parts, from = {}, at + 1
    while true do
        local stop = text:find('["\\]', from) or fail(at)
        parts[#parts + 1] = text:sub(from, stop - 1)
        if text:byte(stop) == 34 then
            return table.concat(parts), stop + 1
        end
        local letter = text:sub(stop + 1, stop + 1)
        if letter == "u" then
            -- HQ escapes control characters only; everything else comes as it is.
            local code = tonumber(text:match("^%x%x%x%x", stop + 2) or fail(stop), 16)
            parts[#parts + 1] = code < 128 and string.char(code) or fail(stop)
            from = stop + 6
        else
            parts[#parts + 1] = ESCAPES[letter] or fail(stop)
            from = stop + 2
        end
    end
end

-- Entries between the brackets, each read by `entry(result, at)`, which answers where it ended.
local function series(text, at, close, entry)
    local result = {}
    at = skip(text, at + 1)
    if text:byte(at) == close then
        return result, at + 1
    end
    while true do
        at = skip(text, entry(result, at))
        local byte = text:byte(at)
        if byte == close then
            return result, at + 1
        elseif byte ~= 44 then
            fail(at)
        end
        at = skip(text, at + 1)
    end
end

function value(text, at)
    local byte = text:byte(at)
    if byte == 34 then
        return string_at(text, at)
    elseif byte == 123 then
        return series(text, at, 125, function(result, from)
            if text:byte(from) ~= 34 then
                fail(from)
            end
            local key, colon = string_at(text, from)
            colon = skip(text, colon)
            if text:byte(colon) ~= 58 then
                fail(colon)
            end
            local stop
            result[key], stop = value(text, skip(text, colon + 1))
            return stop
        end)
    elseif byte == 91 then
        return series(text, at, 93, function(result, from)
            local stop
            result[#result + 1], stop = value(text, from)
            return stop
        end)
    end
    local word = text:match("^[%w+.-]+", at) or fail(at)
    local plain
    if word == "true" then
        plain = true
    elseif word == "false" then
        plain = false
    elseif word ~= "null" then
        plain = tonumber(word) or fail(at)
    end
    return plain, at + #word
end

function M.decode(text)
    local result, at = value(text, skip(text, 1))
    if skip(text, at) <= #text then
        fail(at)
    end
    return result
end

return M
