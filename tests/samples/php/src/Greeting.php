<?php

namespace Hello;

class Greeting
{
    public static function text(): string
    {
        return 'Hello from PHP, release ' . getenv('QUARRY_RELEASE') . ' at ' . $_SERVER['REQUEST_URI'] . "\n";
    }
}
