#include <image/serve.h>

int main(void)
{
    return image_serve_registry();
}
