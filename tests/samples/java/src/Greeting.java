class Greeting {
    static String text() {
        return "Hello from Java, release " + System.getenv("QUARRY_RELEASE") + "\n";
    }
}
